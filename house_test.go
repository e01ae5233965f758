// Package elbow_test holds the rules of the house: what may import what, and
// that each package says what it is for.
package elbow_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "haslohas.com/elbow"

// mayImport names, for each folder, the packages of this module that it may
// import. A folder that is missing here fails the test: decide where it stands.
var mayImport = map[string][]string{
	"pool":   {},
	"labels": {},
	"state":  {},
	"watch":  {},

	"handover": {},
	"dnssec":   {},
	"dnstap":   {},

	"config": {"dnssec", "labels", "pool"},
	"health": {"pool"},
	"proxy":  {"pool"},
	"admin":  {"pool"},

	"dnsserver": {"dnssec", "dnstap", "pool"},

	"gateway":            {"labels"},
	"gateway/controller": {"discovery", "discovery/kubernetes", "discovery/static", "gateway", "pool"},

	"discovery":        {"pool"},
	"discovery/static": {"pool", "discovery"},
	"discovery/file":   {"pool", "discovery", "labels", "watch"},

	"discovery/kubernetes": {"pool", "discovery", "gateway", "watch"},
	"discovery/ec2":        {"amazon", "pool", "discovery"},

	"loadbalancer": {"discovery", "discovery/kubernetes", "pool"},

	"amazon":          {},
	"delegation":      {"amazon", "dnssec", "pool"},
	"elasticip":       {"amazon"},
	"elasticip/lease": {},

	"acceptance": {},
	"bench":      {},
	"chaos":      {},

	"internal/awstest":     {},
	"internal/dnstable":    {},
	"internal/elbowtest":   {},
	"internal/leasetest":   {},
	"internal/route53test": {},

	"cmd/elbow": {"admin", "amazon", "config", "delegation", "discovery", "discovery/ec2", "discovery/file", "discovery/kubernetes", "discovery/static",
		"dnssec", "dnsserver", "elasticip", "elasticip/lease", "gateway/controller", "handover", "health", "loadbalancer", "pool", "proxy", "state", "watch"},
}

// standardOnly are the folders that import nothing from outside.
var standardOnly = []string{"pool", "labels", "state"}

// foreign are packages that the data plane must work without.
var foreign = []string{"k8s.io/", "github.com/aws/"}

// onlyIn names the folders that may import foreign packages themselves.
var onlyIn = map[string][]string{
	"k8s.io/":         {"discovery/kubernetes", "elasticip/lease", "loadbalancer"},
	"github.com/aws/": {"amazon", "delegation", "discovery/ec2", "elasticip", "internal/awstest"},
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func TestImportsGoDownOnly(t *testing.T) {
	for _, p := range list(t, "-deps") {
		folder, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours {
			continue
		}
		allowed, known := mayImport[folder]
		if !known {
			t.Errorf("%s stands nowhere in the order of the house: add it to mayImport", folder)
		}
		for _, i := range p.Imports {
			if down, ours := strings.CutPrefix(i, module+"/"); ours && !slices.Contains(allowed, down) {
				t.Errorf("%s imports %s, which is not below it", folder, down)
			}
			if slices.Contains(standardOnly, folder) && strings.Contains(i, ".") && !strings.HasPrefix(i, module+"/") {
				t.Errorf("%s imports %s, and may import the standard library alone", folder, i)
			}
		}
		for prefix, folders := range onlyIn {
			for _, i := range p.Imports {
				if strings.HasPrefix(i, prefix) && !slices.Contains(folders, folder) {
					t.Errorf("%s imports %s, which is for %s alone", folder, i, strings.Join(folders, ", "))
				}
			}
		}
		if folder == "proxy" || folder == "dnsserver" || folder == "health" {
			for _, d := range p.Deps {
				for _, f := range foreign {
					if strings.HasPrefix(d, f) {
						t.Errorf("%s depends on %s: the data plane works on without it", folder, d)
					}
				}
			}
		}
	}
}

// list returns the packages of the module and, with -deps, what they need.
func list(t *testing.T, flags ...string) []goPackage {
	t.Helper()
	out, err := exec.Command("go", append(append([]string{"list", "-json=ImportPath,Imports,Deps,Standard"}, flags...), "./...")...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestEveryPackageHasOneDoc(t *testing.T) {
	docs := map[string]int{}
	walk(t, func(path string, f *ast.File) {
		dir := filepath.Dir(path)
		docs[dir] += 0
		if f.Doc != nil {
			docs[dir]++
		}
	})
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("package in %s has %d package comments, want one", dir, n)
		}
	}
}

func TestNoInit(t *testing.T) {
	walk(t, func(path string, f *ast.File) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", path)
			}
		}
	})
}

// walk parses every Go file that is not a test.
func walk(t *testing.T, visit func(path string, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		visit(path, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
