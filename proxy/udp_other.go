//go:build !linux

package proxy

func newUDPEngine(Options) func(*core) (engine, error) { return newUDPNetEngine }
