//go:build !linux

package proxy

var udpEngines = map[string]func(*core) (engine, error){"net": newUDPNetEngine}
