package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"haslohas.com/elbow/pool"
)

const (
	maxCookieSecrets = 3       // the one in use, the one before, the one to come
	maxCookieText    = 1 << 20 // bytes of their file
	maxShort         = 64      // bytes of what is told to who asks which server this is
)

// readCookies reads the secrets of DNS cookies from a file, unless its path is empty.
func (d *decoder) readCookies(c *Config, file string) {
	const at = "dns.cookies.secretFile"
	if file == "" || d.bad(at) {
		return
	}
	c.secretFiles = append(c.secretFiles, file)
	info, err := os.Stat(file)
	switch {
	case err != nil:
		d.fail(at, "reading the secrets: %v", err)
		return
	case !info.Mode().IsRegular(): // opening a pipe would wait for a writer
		d.fail(at, "%s is not a regular file", file)
		return
	case info.Mode().Perm()&0o007 != 0:
		d.fail(at, "everybody may open %s, which holds secrets; chmod o= it", file)
		return
	}
	text, err := read(file, maxCookieText)
	if err == nil {
		c.DNS.Cookies, err = parseCookies(string(text))
	}
	if err != nil {
		d.fail(at, "reading the secrets: %v", err)
	}
}

// parseCookies reads secrets, one on a line as 32 hexadecimal digits. What begins
// with # is a comment. An error does not show what stands there.
func parseCookies(text string) ([]pool.CookieSecret, error) {
	var all []pool.CookieSecret
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		secret, err := hex.DecodeString(line)
		switch {
		case err != nil || len(secret) != len(pool.CookieSecret{}):
			return nil, fmt.Errorf("line %d is no secret: want 32 hexadecimal digits, as openssl rand -hex 16 makes them", number)
		case len(all) == maxCookieSecrets:
			return nil, fmt.Errorf("line %d is one too many: at most %d secrets are of use", number, maxCookieSecrets)
		}
		for _, other := range all {
			if other == pool.CookieSecret(secret) {
				return nil, fmt.Errorf("line %d has a secret that stands above already", number)
			}
		}
		all = append(all, pool.CookieSecret(secret))
	}
	if len(all) == 0 {
		return nil, errors.New("there is none: want 32 hexadecimal digits on a line, as openssl rand -hex 16 makes them")
	}
	return all, nil
}

// parseShort reads what a server is called.
func parseShort(s string) (string, error) {
	if len(s) > maxShort {
		return "", fmt.Errorf("has %d bytes, at most %d are allowed", len(s), maxShort)
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return "", fmt.Errorf("%s has a character that cannot be printed", quote(s))
		}
	}
	return s, nil
}
