package pool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
)

func TestSecretsAreNotShown(t *testing.T) {
	k := Key{Name: "a.test", Secret: "tell nobody"}
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, k), fmt.Sprintf(verb, &k), fmt.Sprintf(verb, k.Secret), fmt.Sprintf(verb, []Key{k}))
	}
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", k, "secret", k.Secret)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", k, "secret", k.Secret)
	for _, s := range append(shown, string(text), log.String(), k.Secret.String()) {
		for _, part := range []string{"tell", fmt.Sprintf("%x", "tell"), fmt.Sprintf("%X", "tell")} {
			if bytes.Contains([]byte(s), []byte(part)) {
				t.Errorf("the secret stands in %q", s)
			}
		}
	}
}
