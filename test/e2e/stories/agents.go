package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// agentOf returns the pod of a node's agent.
func (s *scene) agentOf(node string) (*corev1.Pod, error) {
	pods, err := s.driverPods(agentLabels)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		if pod.Spec.NodeName == node && pod.DeletionTimestamp == nil {
			return &pod, nil
		}
	}
	return nil, fmt.Errorf("%s has no agent", node)
}

// restartAgent deletes a node's agent and waits for the next one.
func (s *scene) restartAgent(node string) {
	old, err := s.agentOf(node)
	s.must(err, "find the agent")
	s.must(s.api.CoreV1().Pods(s.namespace).Delete(s.ctx, old.Name, metav1.DeleteOptions{}), "delete the agent of %s", node)
	s.agentBack(node, old.Name)
}

// agentBack waits until a node has an agent that is not the old one.
func (s *scene) agentBack(node, old string) {
	s.until(patience, "the agent of "+node+" is back", func() string {
		pod, err := s.agentOf(node)
		switch {
		case err != nil:
			return err.Error()
		case pod.Name == old:
			return "it is the old one"
		}
		return notReady(pod)
	})
}

// A listing is what `csi-dmthin volumes -o json` prints.
type listing struct {
	Devices []struct{ Name, Kind, ID string }
}

// kept returns what the agents say that nodes keep, volumes and snapshots, by their ids.
func (s *scene) kept(what string) (map[string]string, error) {
	kept := map[string]string{}
	for _, node := range s.nodes {
		agent, err := s.agentOf(node)
		if err != nil {
			return nil, err
		}
		said, err := s.execInPod(s.ctx, s.namespace, agent.Name, "csi-dmthin", "csi-dmthin", what, "-o", "json")
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", what, node, err)
		}
		var list listing
		if err := json.Unmarshal([]byte(said), &list); err != nil {
			return nil, err
		}
		for _, device := range list.Devices {
			if other, ok := kept[device.ID]; ok {
				return nil, fmt.Errorf("%s is on %s and on %s", device.ID, other, node)
			}
			kept[device.ID] = node
		}
	}
	return kept, nil
}

// nothingLostOrDoubled waits until the nodes keep the volumes that Kubernetes knows, each
// where it is said to be, and no others.
func (s *scene) nothingLostOrDoubled() {
	s.until(patience, "nodes keep what Kubernetes knows", func() string {
		kept, err := s.kept("volumes")
		if err != nil {
			return err.Error()
		}
		list, err := s.api.CoreV1().PersistentVolumes().List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		known := map[string]string{}
		for _, pv := range list.Items {
			if csi := pv.Spec.CSI; csi != nil && csi.Driver == driver {
				known[csi.VolumeHandle] = strings.Join(homes(pv), ",")
			}
		}
		return difference(known, kept)
	})
}

// difference says how what is kept differs from what is known.
func difference(known, kept map[string]string) string {
	var wrong []string
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if node, ok := kept[id]; !ok {
			wrong = append(wrong, "lost: "+id)
		} else if node != known[id] {
			wrong = append(wrong, fmt.Sprintf("on %s, not on %s: %s", node, known[id], id))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(kept)) {
		if _, ok := known[id]; !ok {
			wrong = append(wrong, "unknown: "+id)
		}
	}
	return strings.Join(wrong, ", ")
}

// room returns how much each node has for a class, as the scheduler knows it.
func (s *scene) room(class string) map[string]int64 {
	list, err := s.api.StorageV1().CSIStorageCapacities("").List(s.ctx, metav1.ListOptions{})
	s.must(err, "list capacities")
	room := map[string]int64{}
	for _, c := range list.Items {
		if c.StorageClassName != class || c.Capacity == nil || c.NodeTopology == nil {
			continue
		}
		if node := c.NodeTopology.MatchLabels[topologyKey]; slices.Contains(s.nodes, node) {
			room[node] = c.Capacity.Value()
		}
	}
	return room
}

// roomiest returns the node that the scheduler prefers for a class.
func (s *scene) roomiest(class string) (node string) {
	s.until(patience, "all nodes have room for "+class, func() string {
		room := s.room(class)
		if len(room) < len(s.nodes) {
			return fmt.Sprint(room)
		}
		node = s.nodes[0]
		for _, n := range s.nodes {
			if room[n] > room[node] {
				node = n
			}
		}
		return ""
	})
	return node
}
