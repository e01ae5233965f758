//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is what /proc counts CPU time of the machine in: proc(5).
const userHZ = 100

// usage is CPU time that was used until some moment.
type usage struct {
	process time.Duration // by the proxy, user and system
	machine time.Duration // by everything on all processors
}

func (u usage) sub(before usage) usage {
	return usage{u.process - before.process, u.machine - before.machine}
}

// used reads the usage of a process, with its children, and of the machine.
func used(pid int) (usage, error) {
	var p time.Duration
	for _, pid := range family(pid) {
		one, err := processTime(pid)
		if err != nil {
			return usage{}, err
		}
		p += one
	}
	m, err := machineTime()
	return usage{p, m}, err
}

// family returns a process and those that it has started, and so on.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i])) // the pattern is right
		for _, f := range files {
			text, _ := os.ReadFile(f) // of a thread that has ended: it has none
			for field := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(field); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// processTime adds up the threads of a process. The scheduler's own account
// is in nanoseconds, where /proc/PID/stat has hundredths of a second.
func processTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("reading the CPU time of process %d: it has no threads", pid)
	}
	var sum time.Duration
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that ended just now; its time is lost, and small
		}
		if err != nil {
			return 0, fmt.Errorf("reading CPU time: %w", err)
		}
		ns, err := strconv.ParseInt(string(bytes.Fields(text)[0]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", f, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// machineTime is all but the idle time of the first line of /proc/stat.
func machineTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("reading CPU time: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks int64
	for i, field := range strings.Fields(line)[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading /proc/stat: %w", err)
		}
		if i != 3 && i != 4 && i != 7 {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / userHZ, nil
}

// residentAnon is the memory of a process that is its own and in RAM.
func residentAnon(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("reading memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no RssAnon", pid)
}

// onProcessors calls do on a thread that runs on some processors. What do starts
// stays there.
func onProcessors(do func() error, cpus ...int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("reading the processors: %w", err)
	}
	for _, cpu := range cpus {
		some.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &some); err != nil {
		return fmt.Errorf("binding to processors %v: %w", cpus, err)
	}
	return errors.Join(do(), unix.SchedSetaffinity(0, &before))
}

// bindAll binds every thread of this process to one processor.
func bindAll(cpu int) error { return bind(os.Getpid(), cpu) }

// bindFamily binds a process and those it has started: Knot chooses its
// processors itself.
func bindFamily(pid, cpu int) error {
	for _, pid := range family(pid) {
		if err := bind(pid, cpu); err != nil {
			return err
		}
	}
	return nil
}

// bind binds every thread of a process to one processor.
func bind(pid, cpu int) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	var one unix.CPUSet
	one.Set(cpu)
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &one); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("binding to processor %d: %w", cpu, err)
		}
	}
	return nil
}
