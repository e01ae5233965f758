package config

import "strings"

// nearest returns the one of known that key was probably meant to be, empty if
// none is close.
func nearest(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	best, least := "", 3
	for _, k := range known {
		n := distance(strings.ToLower(key), strings.ToLower(k))
		if n < least && n*2 < len(k) {
			best, least = k, n
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour on the way from a to b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
