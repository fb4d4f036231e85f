package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// How a claim differs from a usual one, which is a file system of one node.
type claimOption func(*corev1.PersistentVolumeClaim)

func block(claim *corev1.PersistentVolumeClaim) {
	mode := corev1.PersistentVolumeBlock
	claim.Spec.VolumeMode = &mode
}

func oncePod(claim *corev1.PersistentVolumeClaim) {
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
}

func fromSnapshot(name string) claimOption {
	return func(claim *corev1.PersistentVolumeClaim) {
		group := volumeSnapshots.Group
		claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: name}
	}
}

func fromClaim(name string) claimOption {
	return func(claim *corev1.PersistentVolumeClaim) {
		claim.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: name}
	}
}

// claim asks for a volume.
func (s *scene) claim(name, size, class string, how ...claimOption) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: storage(size)},
		},
	}
	for _, change := range how {
		change(claim)
	}
	_, err := s.api.CoreV1().PersistentVolumeClaims(s.ns).Create(s.ctx, claim, metav1.CreateOptions{})
	s.must(err, "create claim %s", name)
}

func storage(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

func bytesOf(size string) int64 {
	q := resource.MustParse(size)
	return q.Value()
}

// bound waits until a claim has its volume.
func (s *scene) bound(name string) corev1.PersistentVolume {
	var volume string
	s.until(patience, "claim "+name+" is bound", func() string {
		claim, err := s.getClaim(name)
		if err != nil {
			return err.Error()
		}
		if claim.Status.Phase != corev1.ClaimBound {
			return string(claim.Status.Phase)
		}
		volume = claim.Spec.VolumeName
		return ""
	})
	pv, err := s.api.CoreV1().PersistentVolumes().Get(s.ctx, volume, metav1.GetOptions{})
	s.must(err, "get the volume of claim %s", name)
	return *pv
}

func (s *scene) getClaim(name string) (*corev1.PersistentVolumeClaim, error) {
	return s.api.CoreV1().PersistentVolumeClaims(s.ns).Get(s.ctx, name, metav1.GetOptions{})
}

// resize asks for another size of a claim.
func (s *scene) resize(name, size string) {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"resources": map[string]any{"requests": storage(size)}}})
	s.must(err, "resize claim %s", name)
	_, err = s.api.CoreV1().PersistentVolumeClaims(s.ns).Patch(s.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	s.must(err, "resize claim %s to %s", name, size)
}

// resized waits until a claim has the size.
func (s *scene) resized(name, size string) {
	want := resource.MustParse(size)
	hurried := false
	s.until(patience, "claim "+name+" has "+size, func() string {
		claim, err := s.getClaim(name)
		if err != nil {
			return err.Error()
		}
		if have := claim.Status.Capacity[corev1.ResourceStorage]; have.Cmp(want) != 0 {
			if claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage] == corev1.PersistentVolumeClaimNodeResizePending && !hurried {
				hurried = true
				s.hurryKubelets()
			}
			return fmt.Sprintf("it has %s, %v", have.String(), claim.Status.AllocatedResourceStatuses)
		}
		return ""
	})
}

// hurryKubelets has them look at the scene's pods now. They see that a volume is to grow when
// they look at its pod, which is when something about it changes, or after a minute or more.
func (s *scene) hurryKubelets() {
	pods := s.api.CoreV1().Pods(s.ns)
	list, err := pods.List(s.ctx, metav1.ListOptions{})
	s.must(err, "list the pods")
	for _, pod := range list.Items {
		patch := fmt.Sprintf(`{"metadata":{"annotations":{"e2e":"%d"}}}`, time.Now().UnixNano())
		_, err := pods.Patch(s.ctx, pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		s.must(err, "annotate pod %s", pod.Name)
	}
}

// removeClaim deletes a claim, whose volume goes on its own.
func (s *scene) removeClaim(name string) {
	s.must(s.api.CoreV1().PersistentVolumeClaims(s.ns).Delete(s.ctx, name, metav1.DeleteOptions{}), "delete claim %s", name)
}

// homes returns the nodes that a volume can be used on.
func homes(pv corev1.PersistentVolume) (nodes []string) {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == topologyKey && e.Operator == corev1.NodeSelectorOpIn {
				nodes = append(nodes, e.Values...)
			}
		}
	}
	return nodes
}

// told waits for an event of an object that has all of the words.
func (s *scene) told(kind, name string, words ...string) {
	s.toldWithin(patience, kind, name, words...)
}

func (s *scene) toldWithin(limit time.Duration, kind, name string, words ...string) {
	what := fmt.Sprintf("an event of %s %s that has %q", kind, name, words)
	s.until(limit, what, func() string {
		list, err := s.api.CoreV1().Events(s.ns).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		last := "it has no events"
		for _, event := range list.Items {
			if event.InvolvedObject.Kind != kind || event.InvolvedObject.Name != name {
				continue
			}
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(event.Message, w) }) {
				return ""
			}
			last = "it has: " + event.Reason + ": " + event.Message
		}
		return last
	})
}
