package awstest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	token = "AQAEALtoken-of-the-test==" // of the metadata service
	role  = "elbow-role"
	mac   = "0a:1b:2c:3d:4e:5f"
)

// MetadataHost is where an instance finds its metadata service.
const MetadataHost = "169.254.169.254"

// RoleKey is the access key that instances get from their role; the cloud
// must be told of it by AddCredentials.
const (
	RoleKey    = "ASIAELBOWROLE0000001"
	RoleSecret = "r0le/secret+that/must/never/be/seen+either"
)

// Metadata returns the metadata service of an instance, in version 2 alone: a
// request without a token is refused.
func Metadata(instance Instance) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		ttl := r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds")
		if n, err := strconv.Atoi(ttl); err != nil || n < 1 || n > 21600 || r.Header.Get("X-Forwarded-For") != "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", ttl)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, token)
	})
	get := func(path string, text func() string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Aws-Ec2-Metadata-Token") != token {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, text())
		})
	}
	get("/latest/dynamic/instance-identity/document", func() string {
		return object("instanceId", instance.ID, "region", Region, "availabilityZone", instance.Zone, "version", "2017-09-30")
	})
	get("/latest/meta-data/mac", func() string { return mac })
	get("/latest/meta-data/network/interfaces/macs/"+mac+"/vpc-id", func() string { return instance.VPC })
	get("/latest/meta-data/iam/security-credentials/{$}", func() string { return role })
	get("/latest/meta-data/iam/security-credentials/"+role, func() string {
		now := time.Now().UTC()
		return object("Code", "Success", "Type", "AWS-HMAC", "AccessKeyId", RoleKey, "SecretAccessKey", RoleSecret, "Token", "session-"+strings.Repeat("x", 40),
			"LastUpdated", now.Format(time.RFC3339), "Expiration", now.Add(6*time.Hour).Format(time.RFC3339))
	})
	return mux
}

func object(pairs ...string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	out, _ := json.Marshal(m) // strings
	return string(out)
}
