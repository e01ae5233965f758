package amazon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// maxMetadata bounds what is read of one answer of the metadata service, in bytes.
const maxMetadata = 4096

// An Instance is the EC2 instance that the program runs on.
type Instance struct {
	ID     string // such as i-0123456789abcdef0
	Region string
	VPC    string // empty: not told
}

// EC2 returns a client of EC2 in the region of o, else in that which the tools of
// AWS find, else in that of this instance. client is what it speaks by; nil:
// the SDK's own.
func EC2(ctx context.Context, o Options, client *http.Client) (*ec2.Client, error) {
	c, err := load(ctx, o, client)
	if err != nil {
		return nil, err
	}
	if c.Region == "" {
		doc, err := metadata(c).GetInstanceIdentityDocument(ctx, &imds.GetInstanceIdentityDocumentInput{})
		if err != nil {
			return nil, fmt.Errorf("no region of AWS is known: set aws.region; asking the instance metadata service: %w", noMetadata(ctx, err))
		}
		c.Region = doc.Region
	}
	return ec2.NewFromConfig(c), nil
}

// Self asks the instance metadata service, in version 2 alone, who this
// instance is. client is as for EC2.
func Self(ctx context.Context, o Options, client *http.Client) (Instance, error) {
	c, err := load(ctx, o, client)
	if err != nil {
		return Instance{}, err
	}
	service := metadata(c)
	doc, err := service.GetInstanceIdentityDocument(ctx, &imds.GetInstanceIdentityDocumentInput{})
	if err != nil {
		return Instance{}, fmt.Errorf("asking the instance metadata service who this is: %w", noMetadata(ctx, err))
	}
	if doc.InstanceID == "" {
		return Instance{}, errors.New("asking the instance metadata service who this is: it names no instance")
	}
	self := Instance{ID: doc.InstanceID, Region: doc.Region}
	if mac, err := metadataText(ctx, service, "mac"); err == nil {
		self.VPC, err = metadataText(ctx, service, "network/interfaces/macs/"+mac+"/vpc-id")
		if err != nil {
			self.VPC = "" // one that is told nothing of it asks without it
		}
	}
	return self, nil
}

func load(ctx context.Context, o Options, client *http.Client) (aws.Config, error) {
	c, err := Load(ctx, o)
	if client != nil {
		c.HTTPClient = client
	}
	return c, err
}

func metadata(c aws.Config) *imds.Client {
	return imds.NewFromConfig(c, func(o *imds.Options) {
		o.EnableFallback = aws.FalseTernary // version 2: a token guards against requests that somebody forwards
	})
}

func metadataText(ctx context.Context, service *imds.Client, path string) (string, error) {
	out, err := service.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	defer out.Content.Close()
	text, err := io.ReadAll(io.LimitReader(out.Content, maxMetadata))
	return strings.TrimSpace(string(text)), err
}

// noMetadata says what to do where the metadata service does not answer.
func noMetadata(ctx context.Context, err error) error {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		switch answer.HTTPStatusCode() {
		case http.StatusForbidden:
			return errors.New("it is switched off for this instance; switch it on: aws ec2 modify-instance-metadata-options --http-endpoint enabled")
		case http.StatusUnauthorized:
			return errors.New("it refuses its own token; is there a proxy between?")
		}
		return fmt.Errorf("it answers with status %d", answer.HTTPStatusCode())
	}
	if ctx.Err() == context.Canceled {
		return context.Canceled
	}
	return errors.New("it does not answer; is this an instance of EC2, and if elbow runs in a container, is the hop limit of the service at least 2?")
}
