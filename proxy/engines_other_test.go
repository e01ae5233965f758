//go:build !linux

package proxy

var engines = map[string]func(*core) (engine, error){"net": newNetEngine}
