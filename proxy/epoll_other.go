//go:build !linux

package proxy

import (
	"errors"
	"fmt"
)

func newEpollEngine(*core, int) (engine, error) {
	return nil, fmt.Errorf("engine %q needs Linux: %w", Epoll, errors.ErrUnsupported)
}
