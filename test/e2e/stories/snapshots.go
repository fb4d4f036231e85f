package main

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Snapshots are no part of Kubernetes' own API, so they are read as the maps they are.
var (
	volumeSnapshots  = schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshots"}
	snapshotContents = volumeSnapshots.GroupVersion().WithResource("volumesnapshotcontents")
	snapshotClasses  = volumeSnapshots.GroupVersion().WithResource("volumesnapshotclasses")
)

// snapshot asks for a snapshot of a claim's volume.
func (s *scene) snapshot(name, claim string) {
	_, err := s.objects.Resource(volumeSnapshots).Namespace(s.ns).Create(s.ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": volumeSnapshots.GroupVersion().String(),
		"kind":       "VolumeSnapshot",
		"metadata":   map[string]any{"name": name},
		"spec": map[string]any{
			"volumeSnapshotClassName": s.snapshotClass,
			"source":                  map[string]any{"persistentVolumeClaimName": claim},
		},
	}}, metav1.CreateOptions{})
	s.must(err, "create snapshot %s", name)
}

// taken waits until a snapshot is one.
func (s *scene) taken(name string) {
	s.until(patience, "snapshot "+name+" is ready", func() string {
		status, err := s.snapshotStatus(name)
		if err != nil {
			return err.Error()
		}
		if ready, _, _ := unstructured.NestedBool(status, "readyToUse"); !ready {
			return fmt.Sprint(status)
		}
		return ""
	})
}

// refusal returns why a snapshot is not made, or "" as long as nothing is known.
func (s *scene) refusal(name string) (string, error) {
	status, err := s.snapshotStatus(name)
	if err != nil {
		return "", err
	}
	message, _, err := unstructured.NestedString(status, "error", "message")
	return message, err
}

func (s *scene) snapshotStatus(name string) (map[string]any, error) {
	object, err := s.objects.Resource(volumeSnapshots).Namespace(s.ns).Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	status, _, err := unstructured.NestedMap(object.Object, "status")
	return status, err
}

// removeSnapshot deletes a snapshot and waits until it is gone.
func (s *scene) removeSnapshot(name string) {
	snapshots := s.objects.Resource(volumeSnapshots).Namespace(s.ns)
	s.must(snapshots.Delete(s.ctx, name, metav1.DeleteOptions{}), "delete snapshot %s", name)
	s.until(patience, "snapshot "+name+" is gone", func() string {
		_, err := snapshots.Get(s.ctx, name, metav1.GetOptions{})
		return gone(err, "it")
	})
}

// ownContents returns the VolumeSnapshotContents of the scene's snapshots.
func (s *scene) ownContents() (own []unstructured.Unstructured, err error) {
	if s.snapshotClass == "" {
		return nil, nil
	}
	list, err := s.objects.Resource(snapshotContents).List(s.ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, content := range list.Items {
		ns, _, err := unstructured.NestedString(content.Object, "spec", "volumeSnapshotRef", "namespace")
		if err != nil {
			return nil, err
		}
		if ns == s.ns {
			own = append(own, content)
		}
	}
	return own, nil
}
