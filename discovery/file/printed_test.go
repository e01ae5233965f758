package file

import (
	"fmt"
	"strings"
	"testing"

	"haslohas.com/elbow/pool"
)

// minions is what the cluster of 2014 printed (v1beta1).
const minions = `{"metadata": {"selfLink": "/api/v1beta1/minions"},
 "items": [{"metadata": {"name": "172.31.8.233", "resourceVersion": "12", "creationTimestamp": null},
            "resources": {"capacity": {"cpu": 1000, "memory": 3221225472}}},
           {"metadata": {"name": "172.31.8.18", "resourceVersion": "13", "creationTimestamp": null},
            "resources": {"capacity": {"cpu": 1000, "memory": 3221225472}}}]}`

// oldPods is a list of its pods.
const oldPods = `{
  "kind": "PodList", "apiVersion": "v1beta1", "creationTimestamp": null, "selfLink": "/api/v1beta1/pods?namespace=default", "resourceVersion": 77,
  "items": [
    {"id": "8d1c1c5e", "labels": {"name": "http"},
     "desiredState": {"manifest": {"version": "v1beta2", "containers": [
       {"name": "web", "image": "fedora/apache", "ports": [{"hostPort": 80, "containerPort": 80, "protocol": "TCP"}]}]}, "host": "172.31.8.233"},
     "currentState": {"manifest": {"containers": null}, "status": "Running", "host": "172.31.8.233", "hostIP": "172.31.8.233", "podIP": "10.0.1.2"}},
    {"id": "91d2a07e", "labels": {"name": "http"},
     "desiredState": {"manifest": {"containers": [{"ports": [{"hostPort": 80, "containerPort": 80}]}]}, "host": "172.31.8.18/"},
     "currentState": {"status": "Running", "host": "172.31.8.18/"}},
    {"id": "a30f", "labels": {"name": "cache"},
     "desiredState": {"manifest": {"containers": [{"ports": [{"hostPort": 6379, "containerPort": 6379}]}]}},
     "currentState": {"status": "Waiting", "host": ""}}
  ]
}`

const newPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "%s", "labels": {"name": "http"}%s},
 "spec": {"nodeName": "minion1", "containers": [{"ports": [{"name": "web", "containerPort": 80, "hostPort": 8080}, {"name": "metrics", "containerPort": 9100}]}]},
 "status": {"phase": "%s", "hostIP": "172.31.8.99", "podIP": "10.244.0.%d", "conditions": [{"type": "Ready", "status": "False"}]}}`

const newNode = `{"kind": "Node", "metadata": {"name": "minion1", "labels": {"topology.kubernetes.io/zone": "a"}},
 "status": {"addresses": [{"type": "Hostname", "address": "minion1"}, {"type": "InternalIP", "address": "172.31.8.233"},
   {"type": "ExternalIP", "address": "203.0.113.1"}]}}`

func podNamed(name, meta, phase string, n int) string {
	return fmt.Sprintf(newPod, name, meta, phase, n)
}

func listOf(items ...string) string {
	return `{"kind": "List", "apiVersion": "v1", "items": [` + strings.Join(items, ",\n") + "]}"
}

// describeAll writes endpoints as ADDRESS node zone public weight phase.
func describeAll(endpoints []pool.Endpoint) string {
	var all []string
	for _, e := range endpoints {
		s := fmt.Sprint(e.Address, " ", e.Node)
		if e.Zone != "" {
			s += " zone=" + e.Zone
		}
		for _, a := range e.Public {
			s += " public=" + a.String()
		}
		if e.Weight != 1 {
			s += fmt.Sprint(" weight=", e.Weight)
		}
		if e.Phase == pool.Terminating {
			s += " terminating"
		}
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}

func TestPrinted(t *testing.T) {
	port80 := Printed{Port: Port{Number: 80}}
	running := podNamed("http-1", "", "Running", 1)
	tests := []struct {
		name, text string
		what       Printed
		want       string
	}{
		{"minions of v1beta1", minions, port80, "172.31.8.233:80 172.31.8.233; 172.31.8.18:80 172.31.8.18"},
		{"pods of v1beta1", oldPods, Printed{}, "172.31.8.233:80 172.31.8.233; 172.31.8.18:80 172.31.8.18"},
		{"pods of v1beta1 by their labels", oldPods, Printed{Selector: "name=http"}, "172.31.8.233:80 172.31.8.233; 172.31.8.18:80 172.31.8.18"},
		{"a pod of v1beta1 by itself", strings.ReplaceAll(oldPods, `"status": "Running", "host": "172.31.8.18/"`, `"status": "Waiting"`),
			Printed{Port: Port{Number: 80}, PodIP: true}, "10.0.1.2:80 172.31.8.233"},
		{"a pod, ready or not, at its only hostPort", listOf(running), Printed{}, "172.31.8.99:8080 minion1"},
		{"pods that terminate, and that do not run", listOf(podNamed("http-2", `, "deletionTimestamp": "2026-11-23T10:00:00Z"`, "Running", 2),
			podNamed("http-3", "", "Pending", 3)), port80, "172.31.8.99:8080 minion1 terminating"},
		{"pods at their own addresses, by the name of the port", listOf(running), Printed{Port: Port{Name: "metrics"}, PodIP: true}, "10.244.0.1:9100 minion1"},
		{"a pod with a weight", listOf(podNamed("http-1", `, "annotations": {"elbow.haslohas.com/weight": "5"}`, "Running", 1)), port80, "172.31.8.99:8080 minion1 weight=5"},
		{"one object", running, port80, "172.31.8.99:8080 minion1"},
		{"a node", newNode, port80, "172.31.8.233:80 minion1 zone=a public=203.0.113.1"},
		{"pods and their nodes", listOf(newNode, running), port80, "172.31.8.233:8080 minion1 zone=a public=203.0.113.1"},
		{"nobody", listOf(), port80, ""},
		{"nobody with these labels", listOf(running), Printed{Selector: "name=cache"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("pods.json", []byte(test.text), test.what)
			if err != nil {
				t.Fatal(err)
			}
			if got := describeAll(got); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestPrintedErrors(t *testing.T) {
	running := podNamed("http-1", "", "Running", 1)
	tests := []struct {
		name, text string
		what       Printed
		want       string
	}{
		{"nodes without a port", minions, Printed{}, `pods.json:2: items[0], node "172.31.8.233": a list of nodes does not say which port serves; set file: {path: ..., port: 80}`},
		{"nodes by the name of a port", minions, Printed{Port: Port{Name: "http"}}, `pods.json:2: items[0], node "172.31.8.233": a list of nodes does not say`},
		{"a node without an address", strings.ReplaceAll(minions, "172.31.8.18", "minion2"), Printed{Port: Port{Number: 80}},
			`pods.json:4: items[1], node "minion2": has no address of type InternalIP, and its name is no IP address`},
		{"no such port", listOf(podNamed("http-1", "", "Running", 1)), Printed{Port: Port{Number: 81}}, `items[0], pod "http-1": has no container port 81 with a hostPort`},
		{"no hostPort", listOf(running), Printed{Port: Port{Name: "metrics"}}, `pod "http-1": has no container port metrics with a hostPort`},
		{"which port", listOf(running), Printed{PodIP: true}, `pod "http-1": has 2 ports; say which: file: {path: ..., port: 80}`},
		{"not a port", strings.Replace(running, "8080", "80800", 1), Printed{}, `80800 is not a port to connect to`},
		{"no address of the node", strings.Replace(running, "172.31.8.99", "", 1), Printed{}, "has no hostIP, and the name of its node is no IP address; print the nodes too"},
		{"no address of the pod", strings.Replace(running, "10.244.0.1", "", 1), Printed{PodIP: true, Port: Port{Number: 80}}, `pod "http-1": has no podIP`},
		{"a weight that is none", listOf(podNamed("a", `, "annotations": {"elbow.haslohas.com/weight": "x"}`, "Running", 1)), Printed{},
			`annotation elbow.haslohas.com/weight: "x" is not a number from 0 to 256`},
		{"nobody runs", listOf(podNamed("a", "", "Pending", 1), podNamed("b", "", "Failed", 2)), Printed{}, "pods.json:1: of 2 pods in the list none is running"},
		{"other objects", `{"kind": "List", "items": [` + running + `, {"kind": "Service"}]}`, Printed{}, `pods.json:3: items[1]: it is of kind "Service", want a pod or a node`},
		{"a list of something else", `{"kind": "ServiceList", "items": [{}]}`, Printed{}, `items[0]: it is of kind "ServiceList", want a pod or a node`},
		{"nothing says what it is", `{"items": [{}]}`, Printed{}, "items[0]: neither a kind nor a selfLink says what it is"},
		{"not a list", `{"targets": []}`, Printed{}, "pods.json:1: want a list of target groups, or of pods or nodes as kubectl get -o json prints it"},
		{"a wrong type", `{"kind": "PodList",` + "\n" + `"items": [{"spec": ` + "\n\n" + `{"containers": {}}}]}`, Printed{}, "pods.json:4: items[0]: spec.containers: this is no place for an object"},
		{"a wrong selector", minions, Printed{Selector: "="}, `"" is no key of a label`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("pods.json", []byte(test.text), test.what)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v\nwant      %s", err, test.want)
			}
			if got != nil {
				t.Errorf("got %d endpoints beside an error", len(got))
			}
		})
	}
}
