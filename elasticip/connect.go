package elasticip

import (
	"context"
	"net/http"

	"haslohas.com/elbow/amazon"
)

// Connect returns the way to EC2 and the ID of this instance; it is for
// Options.Connect. client is what is spoken by; nil: the SDK's own.
func Connect(ctx context.Context, o amazon.Options, client *http.Client) (API, string, error) {
	self, err := amazon.Self(ctx, o, client)
	if err != nil {
		return nil, "", err
	}
	if o.Region == "" {
		o.Region = self.Region
	}
	api, err := amazon.EC2(ctx, o, client)
	if err != nil {
		return nil, "", err
	}
	return api, self.ID, nil
}
