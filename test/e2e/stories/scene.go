package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A scene is where a story takes place: a namespace. Its verbs return when what they
// say has happened, and end the story if it does not.
type scene struct {
	*cluster
	ctx   context.Context
	ns    string
	after []func()
	notes []string
}

// patience is how long what should happen at once may take, on nodes that are slow and
// have three other stories to tell.
const patience = 2 * time.Minute

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

func (c *cluster) newScene(ctx context.Context, name string) (*scene, error) {
	slug := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-")
	slug = strings.Trim(slug[:min(len(slug), 40)], "-")
	ns, err := c.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-" + slug + "-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &scene{cluster: c, ctx: ctx, ns: ns.Name}, nil
}

// fail ends the story.
func (s *scene) fail(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

// must ends the story if there is an error.
func (s *scene) must(err error, doing string, args ...any) {
	if err != nil {
		s.fail("%s: %v", fmt.Sprintf(doing, args...), err)
	}
}

// note is printed below the story's line.
func (s *scene) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// finally is done when the story is over, however it ended.
func (s *scene) finally(do func()) { s.after = append(s.after, do) }

// until waits for what look returns "" for. Before, look says what it sees instead.
func (s *scene) until(limit time.Duration, what string, look func() string) {
	begin := time.Now()
	for {
		still := look()
		switch {
		case still == "":
			return
		case s.ctx.Err() != nil:
			s.fail("interrupted while waiting for this: %s: %s", what, still)
		case time.Since(begin) > limit:
			s.fail("not within %v: %s: %s", limit, what, still)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// throughout sees that nothing happens for a while: look returns "" as long as all is well.
func (s *scene) throughout(while time.Duration, look func() string) {
	for begin := time.Now(); time.Since(begin) < while; time.Sleep(250 * time.Millisecond) {
		if wrong := look(); wrong != "" {
			s.fail("%s", wrong)
		}
	}
}

// end does what was to be done finally.
func (s *scene) end() error {
	var errs []error
	for _, do := range slices.Backward(s.after) {
		errs = append(errs, performed(do))
	}
	return errors.Join(errs...)
}

// clearUp removes what the story made, and sees that the driver's volumes go, too.
func (s *scene) clearUp() error {
	err := performed(s.removeAll)
	return errors.Join(err, s.api.CoreV1().Namespaces().Delete(s.ctx, s.ns, metav1.DeleteOptions{}))
}

// removeAll does not leave it to the namespace's end, which takes its time over what has
// finalizers.
func (s *scene) removeAll() {
	core := s.api.CoreV1()
	everything := metav1.ListOptions{}
	s.must(core.Pods(s.ns).DeleteCollection(s.ctx, metav1.DeleteOptions{}, everything), "delete the pods")
	s.until(patience, "all pods are gone", func() string {
		list, err := core.Pods(s.ns).List(s.ctx, everything)
		return remaining(err, len(list.Items), "pods")
	})
	if s.snapshotClass != "" {
		s.must(s.objects.Resource(volumeSnapshots).Namespace(s.ns).DeleteCollection(s.ctx, metav1.DeleteOptions{}, everything), "delete the snapshots")
	}
	s.must(core.PersistentVolumeClaims(s.ns).DeleteCollection(s.ctx, metav1.DeleteOptions{}, everything), "delete the claims")
	s.until(patience, "all volumes are gone", func() string {
		volumes, err := s.ownVolumes()
		return remaining(err, len(volumes), "volumes")
	})
	s.until(patience, "all snapshots are gone", func() string {
		contents, err := s.ownContents()
		return remaining(err, len(contents), "snapshots")
	})
}

func remaining(err error, n int, what string) string {
	switch {
	case err != nil:
		return err.Error()
	case n > 0:
		return fmt.Sprintf("%d %s are left", n, what)
	}
	return ""
}

// ownVolumes returns the PersistentVolumes of the scene's claims.
func (s *scene) ownVolumes() (own []corev1.PersistentVolume, err error) {
	list, err := s.api.CoreV1().PersistentVolumes().List(s.ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, volume := range list.Items {
		if claim := volume.Spec.ClaimRef; claim != nil && claim.Namespace == s.ns {
			own = append(own, volume)
		}
	}
	return own, nil
}

// gone says what a look for something found that should not be there.
func gone(err error, what string) string {
	switch {
	case apierrors.IsNotFound(err):
		return ""
	case err != nil:
		return err.Error()
	}
	return what + " is still there"
}
