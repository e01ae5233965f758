package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"k8s.io/component-base/cli"
	"k8s.io/klog/v2"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// The environment of this program when it is started by itself.
const (
	roleVariable  = "E2E_ROLE"  // what it is to be; empty: the one that is run first
	elbowVariable = "E2E_ELBOW" // the path of the elbow that is tested
)

const (
	roleTests     = "tests" // in the network namespace
	roleAPIServer = "kube-apiserver"
	roleKubectl   = "kubectl"
)

// TestMain makes this one program all that a cluster needs.
func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(runApart())
	case roleTests:
		if err := bringUpNetwork(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			os.Exit(1)
		}
		klog.LogToStderr(false)
		klog.SetOutput(io.Discard) // the controllers are as talkative as tests that pass should not be
		os.Exit(m.Run())
	case roleAPIServer:
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case roleKubectl:
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "e2e: %s=%s is no role\n", roleVariable, role)
		os.Exit(2)
	}
}

// runApart builds elbow and runs the tests in a network namespace of their own.
func runApart() int {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	elbow := filepath.Join(dir, "elbow")
	build := exec.Command("go", "build", "-o", elbow, "./cmd/elbow")
	build.Dir = ".." // the module that is tested
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: building elbow: %v\n%s", err, out)
		return 1
	}
	tests := exec.Command(os.Args[0], os.Args[1:]...)
	tests.Env = append(os.Environ(), roleVariable+"="+roleTests, elbowVariable+"="+elbow, "TMPDIR="+dir)
	tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
	tests.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		tests.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		tests.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		tests.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	switch err := tests.Run(); {
	case err == nil:
		return 0
	case tests.ProcessState == nil:
		fmt.Fprintln(os.Stderr, "e2e: a network namespace is needed (root, or user namespaces):", err)
	}
	return 1
}

// bringUpNetwork makes the addresses of a cluster local ones.
func bringUpNetwork() error {
	for _, line := range []string{
		"link set lo up",
		"route add local 172.31.0.0/20 dev lo",   // the VPC
		"route add local 10.244.0.0/16 dev lo",   // pods
		"route add local 54.93.167.95/32 dev lo", // the Elastic IP
		"route add local 203.0.113.0/24 dev lo",  // the public addresses of nodes
	} {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return nil
}
