package proxy

// udpEngines are all that there are for UDP: each test of behaviour runs on each.
var udpEngines = map[string]func(*core) (engine, error){
	"net":                newUDPNetEngine,
	"epoll":              func(c *core) (engine, error) { return makeUDPLoops(c, 1) },
	"epoll with 3 loops": func(c *core) (engine, error) { return makeUDPLoops(c, 3) },
}
