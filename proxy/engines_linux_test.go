package proxy

// engines are all that there are: each test of behaviour runs on each.
var engines = map[string]func(*core) (engine, error){
	"net":                newNetEngine,
	"epoll":              func(c *core) (engine, error) { return newEpollEngine(c, 1) },
	"epoll with 3 loops": func(c *core) (engine, error) { return newEpollEngine(c, 3) },
}
