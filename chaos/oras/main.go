// The oras library as a command, for the tests of the registry: what an `oras` user does, with the code
// that the oras command line itself is made of.
//
//	oras-client push LAYOUT TAG REGISTRY/REPOSITORY:TAG      copies an image and all it names
//	oras-client pull REGISTRY/REPOSITORY:TAG LAYOUT          the other way
//	oras-client attach REGISTRY/REPOSITORY:TAG TYPE FILE     pushes FILE as an artifact with a subject
//	oras-client discover REGISTRY/REPOSITORY:TAG TYPE        prints the referrers' digests
//
// Each command prints the digests it dealt with, one a line.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
)

const deadline = 3 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oras-client:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	switch {
	case len(arguments) == 4 && arguments[0] == "push":
		return push(ctx, arguments[1], arguments[2], arguments[3])
	case len(arguments) == 3 && arguments[0] == "pull":
		return pull(ctx, arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "attach":
		return attach(ctx, arguments[1], arguments[2], arguments[3])
	case len(arguments) == 3 && arguments[0] == "discover":
		return discover(ctx, arguments[1], arguments[2])
	}
	return fmt.Errorf("push, pull, attach or discover: see the head of main.go")
}

func open(reference string) (*remote.Repository, error) {
	repository, err := remote.NewRepository(reference)
	if err != nil {
		return nil, err
	}
	repository.PlainHTTP = true
	return repository, nil
}

func push(ctx context.Context, layout, tag, reference string) error {
	source, err := oci.New(layout)
	if err != nil {
		return err
	}
	target, err := open(reference)
	if err != nil {
		return err
	}
	root, err := oras.Copy(ctx, source, tag, target, target.Reference.Reference, oras.DefaultCopyOptions)
	if err != nil {
		return err
	}
	fmt.Println(root.Digest)
	return nil
}

func pull(ctx context.Context, reference, layout string) error {
	source, err := open(reference)
	if err != nil {
		return err
	}
	target, err := oci.New(layout)
	if err != nil {
		return err
	}
	root, err := oras.Copy(ctx, source, source.Reference.Reference, target, "pulled", oras.DefaultCopyOptions)
	if err != nil {
		return err
	}
	fmt.Println(root.Digest)
	return nil
}

func attach(ctx context.Context, reference, artifactType, file string) error {
	repository, err := open(reference)
	if err != nil {
		return err
	}
	bytes, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	subject, err := repository.Resolve(ctx, repository.Reference.Reference)
	if err != nil {
		return err
	}
	layer, err := oras.PushBytes(ctx, repository, "application/octet-stream", bytes)
	if err != nil {
		return err
	}
	options := oras.PackManifestOptions{Subject: &subject, Layers: []ocispec.Descriptor{layer}}
	artifact, err := oras.PackManifest(ctx, repository, oras.PackManifestVersion1_1, artifactType, options)
	if err != nil {
		return err
	}
	fmt.Println(artifact.Digest)
	return nil
}

func discover(ctx context.Context, reference, artifactType string) error {
	repository, err := open(reference)
	if err != nil {
		return err
	}
	subject, err := repository.Resolve(ctx, repository.Reference.Reference)
	if err != nil {
		return err
	}
	return repository.Referrers(ctx, subject, artifactType, func(referrers []ocispec.Descriptor) error {
		for _, referrer := range referrers {
			fmt.Println(referrer.Digest)
		}
		return nil
	})
}
