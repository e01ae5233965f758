//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
)

// What load and backend speak: each request is 64 bytes, an operation, a
// number and a filling. An echo is answered with the same 64 bytes, a bulk
// with as many bytes as the number says, cut from one pattern that both know.
const messageSize = 64

const (
	opEcho byte = 'e'
	opBulk byte = 'b'
)

type message [messageSize]byte

func newMessage(op byte, number uint64) message {
	var m message
	m[0] = op
	binary.BigEndian.PutUint64(m[1:], number)
	for i := 9; i < messageSize; i++ {
		m[i] = byte(number) + byte(i)
	}
	return m
}

func (m *message) number() uint64 { return binary.BigEndian.Uint64(m[1:]) }

// pattern is what bulk data is made of.
func pattern() []byte {
	p := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p) // never fails
	return p
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// exchange sends an echo and reads what comes back.
func exchange(c net.Conn, number uint64) error {
	m := newMessage(opEcho, number)
	if _, err := c.Write(m[:]); err != nil {
		return err
	}
	var got message
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return err
	}
	if got != m {
		return errors.New("the echo differs from what was sent")
	}
	return nil
}

// A bulkReader reads bulk data and verifies it.
type bulkReader struct {
	buffer  []byte
	pattern []byte
	sum     uint32 // of the whole pattern
}

func newBulkReader() *bulkReader {
	p := pattern()
	return &bulkReader{buffer: make([]byte, len(p)), pattern: p, sum: crc32.Checksum(p, castagnoli)}
}

// fetch asks for n bytes, whole patterns, and reads them.
func (b *bulkReader) fetch(c net.Conn, n int) error {
	m := newMessage(opBulk, uint64(n))
	if _, err := c.Write(m[:]); err != nil {
		return err
	}
	for ; n > 0; n -= len(b.buffer) {
		if _, err := io.ReadFull(c, b.buffer); err != nil {
			return err
		}
		if sum := crc32.Checksum(b.buffer, castagnoli); sum != b.sum {
			return fmt.Errorf("bulk data arrived with checksum %08x, want %08x", sum, b.sum)
		}
	}
	return nil
}
