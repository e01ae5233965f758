package dnssec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxKeys = 16       // of one zone
	maxFile = 16 << 10 // bytes
)

const (
	publicExt  = ".key"
	privateExt = ".private"
)

// A File is the text of the two files of a key.
type File struct {
	Path    string // of the private half
	Public  string
	Private string // nobody else may see it
}

// PublicPath is where the public half of the key lies whose private half lies
// at path.
func PublicPath(path string) string { return strings.TrimSuffix(path, privateExt) + publicExt }

// ReadFolder reads the files of the keys of zone in a folder, sorted by path. It
// refuses private keys that others may read or write.
func ReadFolder(folder, zone string) ([]File, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	var files []File
	var wrong []error
	prefix := "K" + dns.CanonicalName(zone) + "+"
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !strings.HasSuffix(e.Name(), privateExt) {
			continue
		}
		if len(files) == maxKeys {
			return nil, fmt.Errorf("%s has more than %d keys of %s: move away those that have served their time", folder, maxKeys, zone)
		}
		f, err := readKey(filepath.Join(folder, e.Name()))
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		files = append(files, f)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

func readKey(path string) (File, error) {
	private, err := readFile(path, true)
	if err != nil {
		return File{}, err
	}
	public, err := readFile(PublicPath(path), false)
	if err != nil {
		return File{}, err
	}
	return File{Path: path, Public: public, Private: private}, nil
}

func readFile(path string, secret bool) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("reading a key: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading a key: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", fmt.Errorf("reading a key: %w", err)
	}
	if mode := info.Mode().Perm(); secret && mode&0o077 != 0 {
		return "", fmt.Errorf("%s is a private key that others may read or write (mode %04o): if nobody has, run chmod 600 %[1]s, else make a new key and roll over to it", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading a key: %w", err)
	case len(text) > maxFile:
		return "", fmt.Errorf("%s has more than %d bytes: no key has", path, maxFile)
	}
	return string(text), nil
}

// Load reads the keys of zone in a folder, sorted by path.
func Load(folder, zone string) ([]*Key, error) {
	files, err := ReadFolder(folder, zone)
	if err != nil {
		return nil, err
	}
	var keys []*Key
	for _, f := range files {
		k, err := Parse(zone, f.Public, f.Private)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Name is the name of the files of k without their ends.
func (k *Key) Name() string {
	return fmt.Sprintf("K%s+%03d+%05d", k.Record.Hdr.Name, k.Record.Algorithm, k.Tag)
}

// Save writes the files of k into a folder, each whole or not at all. They
// replace those of the same key.
func (k *Key) Save(folder string) error {
	// The public half first: a private key without it is an error to who reads.
	if err := replace(filepath.Join(folder, k.Name()+publicExt), k.publicText(), 0o644); err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	if err := replace(filepath.Join(folder, k.Name()+privateExt), k.privateText(), 0o600); err != nil {
		return fmt.Errorf("writing a key: %w", err)
	}
	return nil
}

func (k *Key) publicText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "; This is a key-signing key, keyid %d, for %s\n", k.Tag, k.Record.Hdr.Name)
	for _, f := range k.Times.fields() {
		if !f.at.IsZero() {
			fmt.Fprintf(&b, "; %s: %s (%s)\n", f.name, f.at.Format(timeFormat), f.at.Format(time.RFC3339))
		}
	}
	fmt.Fprintf(&b, "%s IN DNSKEY %d %d %d %s\n", k.Record.Hdr.Name, k.Record.Flags, k.Record.Protocol, k.Record.Algorithm, k.Record.PublicKey)
	return b.String()
}

func (k *Key) privateText() string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(k.private, "\n") + "\n")
	for _, f := range k.Times.fields() {
		if !f.at.IsZero() {
			fmt.Fprintf(&b, "%s: %s\n", f.name, f.at.Format(timeFormat))
		}
	}
	return b.String()
}

// replace writes a file under another name, and renames it when it is on the disk.
func replace(path, text string, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".elbow-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // it may not be there
		}
	}()
	// As the files that are replaced: the daemon may be another user.
	if info, err := os.Stat(path); err == nil {
		own(f, info)
	} else if info, err := os.Stat(filepath.Dir(path)); err == nil {
		own(f, info)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
