//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// tcpStreams is over how many connections queries come by TCP.
const tcpStreams = 32

// A stream asks by TCP, one query at a time.
type stream struct {
	net.Conn
	buffer [2 + 1500]byte
}

func (s *stream) ask(id uint16, q *question) error {
	n := copy(s.buffer[2:], q.packet)
	binary.BigEndian.PutUint16(s.buffer[:], uint16(n))
	binary.BigEndian.PutUint16(s.buffer[2:], id)
	_, err := s.Write(s.buffer[:2+n])
	return err
}

func (s *stream) collect(id uint16, q *question) error {
	n, err := io.ReadAtLeast(s, s.buffer[:], 2)
	if err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	size := 2 + int(binary.BigEndian.Uint16(s.buffer[:]))
	if size > len(s.buffer) {
		return fmt.Errorf("an answer has %d octets", size)
	}
	if _, err := io.ReadFull(s, s.buffer[min(n, size):size]); err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	return q.verify(id, s.buffer[2:size])
}

// streams asks on connections that stay, each time on all of them.
func streams(questions []question) loadFunc {
	return func(addr string, span time.Duration) (float64, error) {
		all := make([]stream, tcpStreams)
		for i := range all {
			c, err := dial(addr, uint64(i))
			if err != nil {
				return 0, err
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(span + 5*time.Second)); err != nil {
				return 0, err
			}
			all[i].Conn = c
		}
		n := 0
		for end := time.Now().Add(span); time.Now().Before(end); n += len(all) {
			for i := range all {
				if err := all[i].ask(uint16(n+i), &questions[(n+i)%len(questions)]); err != nil {
					return 0, err
				}
			}
			for i := range all {
				if err := all[i].collect(uint16(n+i), &questions[(n+i)%len(questions)]); err != nil {
					return 0, err
				}
			}
		}
		return float64(n), nil
	}
}

// oneEach asks each query on a connection of its own.
func oneEach(questions []question) loadFunc {
	return func(addr string, span time.Duration) (float64, error) {
		n := 0
		for end := time.Now().Add(span); time.Now().Before(end); n++ {
			c, err := dial(addr, uint64(n))
			if err != nil {
				return 0, err
			}
			s := stream{Conn: c}
			q := &questions[n%len(questions)]
			if err = s.ask(uint16(n), q); err == nil {
				err = s.collect(uint16(n), q)
			}
			c.Close()
			if err != nil {
				return 0, err
			}
		}
		return float64(n), nil
	}
}
