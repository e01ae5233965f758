package config

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"haslohas.com/elbow/pool"
)

const (
	maxServices  = 10_000
	maxZones     = 10_000
	maxEndpoints = 10_000 // of one service
	maxHostnames = 1_000  // of one service
	maxNetworks  = 10_000 // in one list
	maxListeners = 256    // in one list
	maxAddresses = 64     // of one host
)

// config decodes the whole file and then checks it as a whole. The result is
// good if d has not failed.
func (d *decoder) config(root *yaml.Node) *Config {
	c := defaultConfig()
	c.file = d.file
	var keys []keyFile
	var cookieFile string
	d.visit(root, "", section{
		{"host", section{
			{"name", name(&c.Host.Name)},
			{"addresses", list(&c.Host.Addresses, maxAddresses, address)},
		}.rule()},
		{"stateDir", path(&c.StateDir)},
		{"admin", section{
			{"listen", listenerOrOff(&c.Admin.Listen)},
			{"socket", path(&c.Admin.Socket)},
		}.rule()},
		{"log", section{
			{"level", enum(&c.Log.Level, parseLevel)},
			{"format", enum(&c.Log.Format, oneOf("text", "json"))},
			{"connections", scalar(&c.Log.Connections, "stdout, stderr, off or a path", parseConnections)},
		}.rule()},
		{"dns", section{
			{"listen", list(&c.DNS.Listen, maxListeners, listener)},
			{"zones", list(&c.DNS.Zones, maxZones, zone)},
			{"rateLimit", section{
				{"perSecond", number(&c.DNS.RateLimit.PerSecond, 0, 1_000_000)},
				{"slip", number(&c.DNS.RateLimit.Slip, 0, 100)},
				{"exempt", list(&c.DNS.RateLimit.Exempt, maxNetworks, network)},
			}.rule()},
			{"keys", list(&keys, maxKeys, key)},
			{"cookies", section{
				{"secretFile", path(&cookieFile)},
			}.rule()},
			{"nsid", text(&c.DNS.NSID, "a text", parseShort)},
			{"ecs", section{
				{"trust", list(&c.DNS.TrustECS, maxNetworks, network)},
			}.rule()},
			{"queryLog", queryLog(&c.DNS.QueryLog)},
			{"dnstap", dnstap(&c.DNS.Dnstap)},
			{"top", boolean(&c.DNS.Top)},
		}.rule()},
		{"services", list(&c.Services, maxServices, service)},
		{"kubernetes", section{
			{"kubeconfig", path(&c.Kubernetes.Kubeconfig)},
			{"loadBalancerClass", text(&c.Kubernetes.LoadBalancerClass, "a class", parseClass)},
			{"gatewayController", text(&c.Kubernetes.GatewayController, "a domain and a path", parseController)},
			{"events", boolean(&c.Kubernetes.Events)},
			{"publicAddresses", scalar(&c.Kubernetes.PublicFromEC2, "one of nodes, ec2", parsePublicFrom)},
		}.rule()},
		{"aws", aws(&c.AWS)},
	}.rule())
	d.check(c)
	d.readCookies(c, cookieFile)
	d.checkKeys(c, keys)
	d.checkTransfers(c, keys)

	slices.SortFunc(c.DNS.Zones, func(a, b *pool.Zone) int { return strings.Compare(a.Name, b.Name) })
	return c
}

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("unknown value %q, want one of debug, info, warn, error", s)
}

func parseConnections(s string) (string, error) {
	switch {
	case s == "stdout", s == "stderr", s == "off":
		return s, nil
	case filepath.IsAbs(s) && !strings.ContainsRune(s, 0):
		return s, nil
	}
	return "", fmt.Errorf("unknown value %s, want one of stdout, stderr, off, or an absolute path", quote(s))
}
