package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// scalar makes a rule for one word, number or string that parse understands.
func scalar[T any](to *T, want string, parse func(string) (T, error)) rule {
	return rule{
		decode: func(d *decoder, v value) {
			if !d.is(v, yaml.ScalarNode, want) {
				return
			}
			x, err := parse(v.Value)
			if err != nil {
				d.fail(v.path, "%v", err)
				return
			}
			*to = x
		},
		about: func() string { return want },
	}
}

// text makes a rule for a string that parse understands.
func text(to *string, want string, parse func(string) (string, error)) rule {
	r := scalar(to, want, parse)
	decode := r.decode
	r.decode = func(d *decoder, v value) {
		if v.Kind == yaml.ScalarNode && strings.HasPrefix(v.ShortTag(), "!!") && v.ShortTag() != "!!str" && v.ShortTag() != "!!null" {
			d.fail(v.path, "want %s, got %s; put it in quotes", want, describe(v.Node))
			return
		}
		decode(d, v)
	}
	return r
}

// enum makes a rule for one of the few values that parse knows and, in its
// error, lists.
func enum[T any](to *T, parse func(string) (T, error)) rule {
	byDefault := *to
	r := scalar(to, "a word", func(s string) (T, error) {
		if x, err := parse(s); err == nil || len(s) <= 64 {
			return x, err
		}
		return parse(s[:64])
	})
	r.about = func() string {
		_, err := parse("")
		_, list, _ := strings.Cut(err.Error(), "want one of ")
		return fmt.Sprintf("one of %s; default %s", list, strings.ToLower(fmt.Sprint(byDefault)))
	}
	return r
}

// oneOf makes a parser of an enumeration whose values are the words themselves.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		for _, w := range words {
			if s == w {
				return s, nil
			}
		}
		return "", fmt.Errorf("unknown value %q, want one of %s", s, strings.Join(words, ", "))
	}
}

// number makes a rule for a whole number from least to most.
func number[T ~int | ~uint16](to *T, least, most int) rule {
	byDefault := *to
	decode := func(d *decoder, v value) {
		if !d.is(v, yaml.ScalarNode, "a number") {
			return
		}
		n, err := strconv.Atoi(v.Value)
		switch {
		case v.ShortTag() == "!!str" && err == nil:
			d.fail(v.path, "want a number, got %s; leave out the quotes", describe(v.Node))
		case v.ShortTag() != "!!int" && v.ShortTag() != "!!float":
			d.fail(v.path, "want a number, got %s", describe(v.Node))
		case errors.Is(err, strconv.ErrRange):
			d.fail(v.path, "must be from %d to %d, got %s", least, most, describe(v.Node))
		case err != nil || v.Value != strconv.Itoa(n): // 0x10, 010, 1_000, 1.5
			d.fail(v.path, "want a whole decimal number, got %s", describe(v.Node))
		case n < least || n > most:
			d.fail(v.path, "must be from %d to %d, got %d", least, most, n)
		default:
			*to = T(n)
		}
	}
	return rule{decode: decode, about: func() string {
		return fmt.Sprintf("number, %d to %d; default %d", least, most, byDefault)
	}}
}

// boolean makes a rule for true and false.
func boolean(to *bool) rule {
	byDefault := *to
	decode := func(d *decoder, v value) {
		if !d.is(v, yaml.ScalarNode, "true or false") {
			return
		}
		if v.ShortTag() != "!!bool" {
			d.fail(v.path, "want true or false, got %s", describe(v.Node))
			return
		}
		*to = strings.EqualFold(v.Value, "true")
	}
	return rule{decode: decode, about: func() string { return fmt.Sprintf("true or false; default %t", byDefault) }}
}

// duration makes a rule for a time from least to most.
func duration(to *time.Duration, least, most time.Duration) rule {
	return durationRule(to, least, most, "", func(x time.Duration) bool { return least <= x && x <= most })
}

// durationOrZero is duration, with 0 besides where it has a meaning of its own.
func durationOrZero(to *time.Duration, least, most time.Duration) rule {
	return durationRule(to, least, most, "0 or ", func(x time.Duration) bool { return x == 0 || least <= x && x <= most })
}

func durationRule(to *time.Duration, least, most time.Duration, zero string, ok func(time.Duration) bool) rule {
	byDefault := *to
	r := scalar(to, "a duration like 30s", func(s string) (time.Duration, error) {
		x, err := parseDuration(s)
		if err == nil && !ok(x) {
			err = fmt.Errorf("must be %s%s to %s, got %s", zero, short(least), short(most), s)
		}
		return x, err
	})
	r.about = func() string {
		return fmt.Sprintf("duration, %s%s to %s; default %s", zero, short(least), short(most), short(byDefault))
	}
	return r
}

// ttl makes a rule for a time to live, whole seconds as it stands on the wire.
func ttl(to *time.Duration) rule {
	const least, most = time.Second, 7 * 24 * time.Hour
	r := duration(to, least, most)
	decode := r.decode
	r.decode = func(d *decoder, v value) {
		before := *to
		if decode(d, v); *to%time.Second != 0 {
			d.fail(v.path, "must be whole seconds, got %s", short(*to))
			*to = before
		}
	}
	return r
}

func parseDuration(s string) (time.Duration, error) {
	x, err := time.ParseDuration(s)
	if err == nil {
		return x, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit; write %q", quote(s), s[:min(len(s), 16)]+"s")
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return 0, fmt.Errorf("%s is no duration: there is no unit d; write %q", quote(s), strconv.FormatUint(n*24, 10)+"h")
		}
	}
	return 0, fmt.Errorf("%s is no duration; write it like 500ms, 30s or 1m30s", quote(s))
}

// short writes a duration without the zeros of [time.Duration.String]:
// 350s, 500ms, 168h.
func short(d time.Duration) string {
	switch {
	case d != 0 && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.String()
}

// path makes a rule for the path of a file or folder. A relative one begins at
// the folder of the configuration; an empty one stays empty.
func path(to *string) rule {
	byDefault := *to
	r := text(to, "a path", func(s string) (string, error) {
		switch {
		case strings.ContainsRune(s, 0):
			return "", errors.New("a path must not have a zero byte")
		case len(s) > 4095: // PATH_MAX
			return "", fmt.Errorf("a path must not be longer than 4095 bytes, this one has %d", len(s))
		}
		return s, nil
	})
	decode := r.decode
	r.decode = func(d *decoder, v value) {
		before := *to
		decode(d, v)
		if *to != "" && *to != before && !filepath.IsAbs(*to) {
			*to = filepath.Join(d.folder, *to)
		}
	}
	r.about = func() string {
		if byDefault == "" {
			return "a path"
		}
		return "a path; default " + byDefault
	}
	return r
}
