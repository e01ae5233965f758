// Package amazon is what all parts that speak with AWS have in common: how
// the SDK finds its credentials, region and endpoint, and how what goes wrong
// there is said in one line that names the cure.
//
// No credential is ever in a log or an error of this package.
package amazon

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
)

const (
	// attempts is how often the SDK asks at most, with pauses that grow up to
	// 5 s, where it is throttled or the answer is lost.
	attempts = 5

	requestTimeout = 20 * time.Second // for one attempt, answer included

	// credentialsTimeout bounds the search through the chain: outside of EC2 its
	// last link, the instance, takes its time to be absent.
	credentialsTimeout = 10 * time.Second
)

// Options say where AWS is. The zero value: as its own tools find it.
type Options struct {
	Region   string // empty: as the tools of AWS find it
	Endpoint string // URL of every service; empty: that of each

	// DefaultRegion is that of services which have none, such as Route 53, where
	// no region is found.
	DefaultRegion string
}

// Load returns what a client of a service is made of. It asks nobody: whether
// there are credentials shows [Credentials], or the first request.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	settings := []func(*config.LoadOptions) error{
		config.WithRetryMaxAttempts(attempts),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(requestTimeout).WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConnsPerHost = 2
		})),
		config.WithLogger(logging.Nop{}),
	}
	if o.Region != "" {
		settings = append(settings, config.WithRegion(o.Region))
	}
	if o.DefaultRegion != "" {
		settings = append(settings, config.WithDefaultRegion(o.DefaultRegion))
	}
	if o.Endpoint != "" {
		settings = append(settings, config.WithBaseEndpoint(o.Endpoint))
	}
	c, err := config.LoadDefaultConfig(ctx, settings...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("reading the settings of AWS (AWS_* variables, ~/.aws): %s", OneLine(err.Error()))
	}
	return c, nil
}

// Credentials reports whether c finds credentials. What they are worth, only a
// request shows. The error is one of [Explain], or that of ctx.
func Credentials(ctx context.Context, c aws.Config) error {
	search, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	_, err := c.Credentials.Retrieve(search)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return &Error{Kind: NoCredentials, What: "finding credentials", Text: "there are none for AWS", Cure: cures[NoCredentials], Err: err}
	}
	return nil
}
