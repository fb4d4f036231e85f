package kubernetes_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/csi-dmthin/csi-dmthin/pkg/gateway"
	"github.com/csi-dmthin/csi-dmthin/pkg/gateway/kubernetes"
)

func cluster() (*kubernetes.Cluster, *fake.Clientset) {
	api := fake.NewClientset()
	return &kubernetes.Cluster{
		Namespace: "storage", ServiceAccount: "agent", Secret: "keys", ConfigMap: "trust",
		Core: api.CoreV1(), Authentication: api.AuthenticationV1(),
	}, api
}

// An agent is who has a token for this audience, of the agents' account, bound to a node.
func TestReview(t *testing.T) {
	good := authentication.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"csi-dmthin.dev/gateway"},
		User: authentication.UserInfo{
			Username: "system:serviceaccount:storage:agent",
			Extra:    map[string]authentication.ExtraValue{"authentication.kubernetes.io/node-name": {"na"}},
		},
	}
	for what, c := range map[string]struct {
		change func(*authentication.TokenReviewStatus)
		says   string
	}{
		"good":           {func(*authentication.TokenReviewStatus) {}, ""},
		"not genuine":    {func(s *authentication.TokenReviewStatus) { s.Authenticated, s.Error = false, "it has expired" }, "it has expired"},
		"other audience": {func(s *authentication.TokenReviewStatus) { s.Audiences = []string{"vault"} }, "vault"},
		"no audience":    {func(s *authentication.TokenReviewStatus) { s.Audiences = nil }, "csi-dmthin.dev/gateway"},
		"other account":  {func(s *authentication.TokenReviewStatus) { s.User.Username = "system:serviceaccount:tenant:agent" }, "tenant:agent"},
		"without a node": {func(s *authentication.TokenReviewStatus) { s.User.Extra = nil }, "1.30"},
		"an empty node": {func(s *authentication.TokenReviewStatus) {
			s.User.Extra["authentication.kubernetes.io/node-name"] = authentication.ExtraValue{""}
		}, "1.30"},
		"several of them": {func(s *authentication.TokenReviewStatus) {
			s.User.Extra["authentication.kubernetes.io/node-name"] = authentication.ExtraValue{"na", "nb"}
		}, "1.30"},
	} {
		t.Run(what, func(t *testing.T) {
			k, api := cluster()
			api.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
				review := a.(clienttesting.CreateAction).GetObject().(*authentication.TokenReview)
				if review.Spec.Token != "secret" || len(review.Spec.Audiences) != 1 || review.Spec.Audiences[0] != gateway.Audience {
					t.Errorf("it was asked for %v", review.Spec)
				}
				review = review.DeepCopy()
				review.Status = *good.DeepCopy()
				c.change(&review.Status)
				return true, review, nil
			})
			node, err := k.Review(t.Context(), "secret")
			if c.says == "" {
				if err != nil || node != "na" {
					t.Errorf("%q, %v", node, err)
				}
				return
			}
			if !errors.Is(err, gateway.ErrRefused) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q, %v", node, err)
			}
		})
	}
	k, api := cluster()
	api.PrependReactor("create", "tokenreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("no connection")
	})
	if _, err := k.Review(t.Context(), "secret"); err == nil || errors.Is(err, gateway.ErrRefused) {
		t.Errorf("that nobody can tell is no refusal: %v", err)
	}
}

// Keys are kept under a version; what is published is one key of a map that may have others.
func TestVault(t *testing.T) {
	k, api := cluster()
	ctx := context.Background()
	if kept, version, err := k.Load(ctx); err != nil || kept != nil || version != "" {
		t.Fatalf("%v, %q, %v", kept, version, err)
	}
	if err := k.Store(ctx, map[string][]byte{"a": []byte("1")}, ""); err != nil {
		t.Fatal(err)
	}
	if err := k.Store(ctx, map[string][]byte{"a": []byte("2")}, ""); !errors.Is(err, gateway.ErrConflict) {
		t.Errorf("a second first: %v", err)
	}
	if kept, _, err := k.Load(ctx); err != nil || string(kept["a"]) != "1" {
		t.Errorf("%v, %v", kept, err)
	}
	for _, bundle := range []string{"one", "two", "two"} {
		if err := k.Publish(ctx, []byte(bundle)); err != nil {
			t.Fatal(err)
		}
		have, err := api.CoreV1().ConfigMaps("storage").Get(ctx, "trust", meta.GetOptions{})
		if err != nil || have.Data["ca.crt"] != bundle {
			t.Errorf("%v, %v", have, err)
		}
	}
	writes := 0
	for _, a := range api.Actions() {
		if a.GetResource().Resource == "configmaps" && a.GetVerb() != "get" {
			writes++
		}
	}
	if writes != 2 {
		t.Errorf("%d writes for two changes", writes)
	}
}

// The volumes of others are none of ours, and those of later pages are.
func TestVolumeHandles(t *testing.T) {
	k, api := cluster()
	pv := func(driver, handle string) core.PersistentVolume {
		return core.PersistentVolume{Spec: core.PersistentVolumeSpec{PersistentVolumeSource: core.PersistentVolumeSource{
			CSI: &core.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle},
		}}}
	}
	api.PrependReactor("list", "persistentvolumes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		options := a.(clienttesting.ListActionImpl).ListOptions
		if options.Limit == 0 {
			t.Error("all were asked for at once")
		}
		if options.Continue == "" {
			return true, &core.PersistentVolumeList{
				ListMeta: meta.ListMeta{Continue: "more"},
				Items:    []core.PersistentVolume{pv("csi-dmthin.dev", "one"), pv("topolvm.io", "theirs"), {}},
			}, nil
		}
		return true, &core.PersistentVolumeList{Items: []core.PersistentVolume{pv("csi-dmthin.dev", "two")}}, nil
	})
	ids, err := k.VolumeHandles(t.Context())
	if err != nil || len(ids) != 2 || !ids["one"] || !ids["two"] {
		t.Errorf("%v, %v", ids, err)
	}
}
