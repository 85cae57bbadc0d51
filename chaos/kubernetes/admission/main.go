// Command admission asks Chaos Mesh itself whether it would take the files it is given: each document is decoded into
// Chaos Mesh's own types, where an unknown field is an error, gets their defaults, and goes through the validation that
// its admission webhooks run. No cluster is needed.
//
// Exit code: 0 every document is taken; 1 one is not.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/chaos-mesh/chaos-mesh/api/v1alpha1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	strict "sigs.k8s.io/yaml"
)

// plain are the kinds of Kubernetes itself among the files: decoded, and judged by nobody.
func plain(kind string) runtime.Object {
	switch kind {
	case "PersistentVolumeClaim":
		return &core.PersistentVolumeClaim{}
	case "ServiceAccount":
		return &core.ServiceAccount{}
	case "Role":
		return &rbac.Role{}
	case "RoleBinding":
		return &rbac.RoleBinding{}
	default:
		return nil
	}
}

// webhook is what the controller registers for each kind.
type webhook interface {
	runtime.Object
	admission.CustomDefaulter
	admission.CustomValidator
}

// object is an empty one of the kind, or nil for a kind that is not Chaos Mesh's.
func object(kind string) webhook {
	switch kind {
	case "PodChaos":
		return &v1alpha1.PodChaos{}
	case "NetworkChaos":
		return &v1alpha1.NetworkChaos{}
	case "IOChaos":
		return &v1alpha1.IOChaos{}
	case "TimeChaos":
		return &v1alpha1.TimeChaos{}
	case "StressChaos":
		return &v1alpha1.StressChaos{}
	case "Schedule":
		return &v1alpha1.Schedule{}
	case "Workflow":
		return &v1alpha1.Workflow{}
	default:
		return nil
	}
}

func admit(document []byte) error {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := strict.Unmarshal(document, &head); err != nil {
		return err
	}
	if plain := plain(head.Kind); plain != nil {
		return strict.UnmarshalStrict(document, plain)
	}
	subject := object(head.Kind)
	if subject == nil {
		return fmt.Errorf("kind %q is not one that is used here", head.Kind)
	}
	if err := strict.UnmarshalStrict(document, subject); err != nil {
		return err
	}
	ctx := context.Background()
	if err := subject.Default(ctx, subject); err != nil {
		return err
	}
	_, err := subject.ValidateCreate(ctx, subject)
	return err
}

func admitFile(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for count := 0; ; count++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err == nil {
			err = admit(document)
		}
		if err != nil {
			return count, fmt.Errorf("%s: document %d: %w", path, count+1, err)
		}
	}
}

func main() {
	refused, taken := 0, 0
	for _, path := range os.Args[1:] {
		count, err := admitFile(path)
		taken += count
		if err != nil {
			refused++
			fmt.Fprintln(os.Stderr, err)
		}
	}
	fmt.Printf("%d documents taken, %d files refused\n", taken, refused)
	if refused > 0 || taken == 0 {
		os.Exit(1)
	}
}
