package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidCoreDumps has the process leave no core file behind: its memory holds the
// keys of zones, TSIG secrets and credentials. Who may raise the limit again may
// read the memory anyway (core(5)).
func forbidCoreDumps() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("reading the limit of core files: %w", err)
	}
	limit.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
