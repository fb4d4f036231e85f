package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func agentRestarted(s *scene) {
	s.claim("data", "256Mi", ext4Class)
	node := s.start("writer", with("data"), writing("data"))
	s.acked("writer")
	s.restartAgent(node)
	s.noWriteFailed("writer")

	s.resize("data", "384Mi")
	s.resized("data", "384Mi")
	acked := s.acked("writer")
	s.stop("writer")
	s.start("reader", with("data"))
	if records := s.records("reader", "/data/log"); records < acked {
		s.fail("there are %d records, and %d were safe", records, acked)
	}
}

// controllerKilled asks for all volumes at once and kills the controllers as soon as there is
// one. The rest is then in all the states that there are.
func controllerKilled(s *scene) {
	const many = 20
	name := func(i int) string { return fmt.Sprintf("data%d", i) }
	volumes, err := s.api.CoreV1().PersistentVolumes().Watch(s.ctx, metav1.ListOptions{})
	s.must(err, "watch volumes")
	defer volumes.Stop()
	var group sync.WaitGroup
	asked := make([]error, many)
	for i := range many {
		group.Go(func() { asked[i] = performed(func() { s.claim(name(i), "64Mi", ext4Class+restores) }) })
	}
	s.first(volumes.ResultChan())
	now := int64(0)
	pods := s.api.CoreV1().Pods(s.namespace)
	s.must(pods.DeleteCollection(s.ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: controllerLabels}), "kill the controllers")
	made, err := s.ownVolumes()
	s.must(err, "list volumes")
	group.Wait()
	s.must(errors.Join(asked...), "ask for %d volumes", many)
	for i := range many {
		s.bound(name(i))
	}
	s.note("%d of %d were made when it was killed", len(made), many)
	s.nothingLostOrDoubled()
	s.noOrphans()
}

// noOrphans asks the controller whether there is a volume that no PersistentVolume names.
func (s *scene) noOrphans() {
	s.until(patience, "there are no orphans", func() string {
		pods, err := s.driverPods(controllerLabels)
		if err != nil || len(pods) == 0 {
			return fmt.Sprint("there is no controller: ", err)
		}
		said, err := s.execInPod(s.ctx, s.namespace, pods[0].Name, "gateway", "csi-dmthin", "volumes", "--orphans", "-o", "json")
		if err != nil {
			return err.Error()
		}
		var list struct{ Orphans []struct{ ID string } }
		if err := json.Unmarshal([]byte(said), &list); err != nil {
			return err.Error()
		}
		if len(list.Orphans) > 0 {
			return fmt.Sprint("there are ", list.Orphans)
		}
		return ""
	})
}

// first waits for the first volume of the scene.
func (s *scene) first(volumes <-chan watch.Event) {
	limit := time.After(patience)
	for {
		select {
		case event := <-volumes:
			pv, ok := event.Object.(*corev1.PersistentVolume)
			if ok && pv.Spec.ClaimRef != nil && pv.Spec.ClaimRef.Namespace == s.ns {
				return
			}
			if !ok {
				s.fail("watch volumes: %v", event.Object)
			}
		case <-limit:
			s.fail("there is no volume after %v", patience)
		}
	}
}

// controllerRestarted watches the scheduler's figures for longer than it takes the next
// controller to know all nodes and to look at them again.
func controllerRestarted(s *scene) {
	s.roomiest(ext4Class)
	before, err := s.api.StorageV1().CSIStorageCapacities("").List(s.ctx, metav1.ListOptions{})
	s.must(err, "list capacities")
	had := map[types.UID]int64{}
	for _, c := range before.Items {
		had[c.UID] = c.Capacity.Value()
	}
	changes, err := s.api.StorageV1().CSIStorageCapacities("").Watch(s.ctx, metav1.ListOptions{ResourceVersion: before.ResourceVersion})
	s.must(err, "watch capacities")
	defer changes.Stop()
	s.must(s.api.CoreV1().Pods(s.namespace).DeleteCollection(s.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: controllerLabels}), "end the controllers")
	s.driverReady()
	enough := time.After(75 * time.Second)
	for seen := 0; ; seen++ {
		select {
		case event := <-changes.ResultChan():
			c, ok := event.Object.(*storagev1.CSIStorageCapacity)
			switch {
			case !ok:
				s.fail("watch capacities: %v", event.Object)
			case event.Type == watch.Deleted:
				s.fail("the capacity of %s on %v is gone", c.StorageClassName, c.NodeTopology.MatchLabels)
			case c.Capacity.Value() < had[c.UID]/2:
				s.fail("the capacity of %s on %v fell from %d to %s", c.StorageClassName, c.NodeTopology.MatchLabels, had[c.UID], c.Capacity)
			}
		case <-enough:
			s.note("%d capacities were published, and %d changes", len(had), seen)
			return
		}
	}
}

// agentStopped has a volume deleted, too, on the node that has no agent.
func agentStopped(s *scene) {
	node := s.roomiest(ext4Class)
	s.claim("old", "64Mi", ext4Class)
	s.start("user", with("old"), on(node))
	old := s.bound("old")
	s.stop("user")
	back := s.stopAgent(node)

	begin := time.Now()
	s.removeClaim("old")
	s.claim("new", "128Mi", ext4Class)
	if at := s.start("pod", with("new")); at == node {
		s.fail("the pod is on %s, which has no agent", node)
	}
	s.note("the pod ran elsewhere after %v", seconds(time.Since(begin)))

	volumes := s.api.CoreV1().PersistentVolumes()
	if _, err := volumes.Get(s.ctx, old.Name, metav1.GetOptions{}); err != nil {
		s.fail("a volume that nobody could delete: %v", err)
	}
	back()
	s.until(patience, "the deleted volume is gone", func() string {
		_, err := volumes.Get(s.ctx, old.Name, metav1.GetOptions{})
		return gone(err, "it")
	})
	s.nothingLostOrDoubled()
}

// stopAgent takes a node's agent away, and no other: its DaemonSet is not for the node any
// more, and replaces no agent because of that. The returned function brings it back.
func (s *scene) stopAgent(node string) (back func()) {
	agent, err := s.agentOf(node)
	s.must(err, "find the agent")
	owner := metav1.GetControllerOf(agent)
	if owner == nil {
		s.fail("agent %s belongs to no DaemonSet", agent.Name)
	}
	sets := s.api.AppsV1().DaemonSets(s.namespace)
	before, err := sets.Get(s.ctx, owner.Name, metav1.GetOptions{})
	s.must(err, "get the DaemonSet")
	replace := func(strategy appsv1.DaemonSetUpdateStrategy, affinity *corev1.Affinity) {
		patch, err := json.Marshal([]map[string]any{
			{"op": "replace", "path": "/spec/updateStrategy", "value": strategy},
			{"op": "replace", "path": "/spec/template/spec/affinity", "value": affinity},
		})
		s.must(err, "change the DaemonSet")
		_, err = sets.Patch(s.ctx, owner.Name, types.JSONPatchType, patch, metav1.PatchOptions{})
		s.must(err, "change the DaemonSet")
	}
	replace(appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType},
		notOn(before.Spec.Template.Spec.Affinity, node))
	restored := false
	back = func() {
		if restored {
			return
		}
		restored = true
		replace(before.Spec.UpdateStrategy, before.Spec.Template.Spec.Affinity)
		s.agentBack(node, agent.Name)
		s.agentsReady()
	}
	s.finally(back)
	s.until(patience, "the agent of "+node+" is gone", func() string {
		_, err := s.api.CoreV1().Pods(s.namespace).Get(s.ctx, agent.Name, metav1.GetOptions{})
		return gone(err, "it")
	})
	return back
}

// notOn adds to an affinity that it is not for a node.
func notOn(affinity *corev1.Affinity, node string) *corev1.Affinity {
	if affinity = affinity.DeepCopy(); affinity == nil {
		affinity = &corev1.Affinity{}
	}
	if affinity.NodeAffinity == nil {
		affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	required := &affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if *required == nil {
		*required = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
	}
	for i := range (*required).NodeSelectorTerms { // any of which is enough
		term := &(*required).NodeSelectorTerms[i]
		term.MatchFields = append(slices.Clone(term.MatchFields), corev1.NodeSelectorRequirement{
			Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{node}})
	}
	return affinity
}

func powerCut(s *scene) {
	node := s.nodes[len(s.nodes)-1]
	s.claim("data", "256Mi", ext4Class)
	s.claim("raw", "64Mi", ext4Class, block)
	s.start("writer", with("data"), device("raw"), writing("data"), on(node))
	sum := s.sh("writer", "dd if=/dev/urandom of=/dev/raw bs=1M count=8 conv=fsync,notrunc status=none && head -c 8388608 /dev/raw | sha256sum")
	acked := s.ackedBeyond("writer", 10)

	_, err := s.harness(s.ctx, "E2E_POWER_CUT", node)
	s.must(err, "cut the power of %s", node)
	_, err = s.harness(s.ctx, "E2E_BOOT", node)
	s.must(err, "boot %s", node)

	begin := time.Now()
	s.until(3*time.Minute, "the writer runs again", func() string {
		pod, err := s.getPod("writer")
		if err != nil {
			return err.Error()
		}
		if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].RestartCount == 0 {
			return "it has not been restarted"
		}
		return notReady(pod)
	})
	s.note("the pod ran again %v after the boot", seconds(time.Since(begin)))
	if records := s.records("writer", "/data/log"); records < acked {
		s.fail("there are %d records, and %d were safe", records, acked)
	}
	expect(s, "what the block volume has", s.sh("writer", "head -c 8388608 /dev/raw | sha256sum"), sum)
	s.noWriteFailed("writer")
	s.driverReady()
}
