package proxy

// engines are all that there are: each test of behaviour runs on each.
var engines = map[string]func(*core) (engine, error){
	"net":                             newNetEngine,
	"epoll":                           newEpollEngine,
	"epoll, one socket for all loops": epollOptions{loops: 3, shared: true}.make,
}
