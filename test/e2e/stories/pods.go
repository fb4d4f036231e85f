package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// How a pod differs from one that has no volumes, sleeps, and may be on any node.
type podOption func(*corev1.Pod)

// with has a claim's file system at /CLAIM.
func with(claim string) podOption {
	return func(pod *corev1.Pod) {
		addVolume(pod, claim)
		c := &pod.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: claim, MountPath: "/" + claim})
	}
}

// device has a claim's block device at /dev/CLAIM.
func device(claim string) podOption {
	return func(pod *corev1.Pod) {
		addVolume(pod, claim)
		c := &pod.Spec.Containers[0]
		c.VolumeDevices = append(c.VolumeDevices, corev1.VolumeDevice{Name: claim, DevicePath: "/dev/" + claim})
	}
}

func addVolume(pod *corev1.Pod, claim string) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
}

// on has the pod on a node, by way of the scheduler, which is who chooses the volume's
// node, too.
func on(node string) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
					Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}},
			}}}
	}
}

// doing has the pod run a script of the shell.
func doing(script string) podOption {
	return func(pod *corev1.Pod) { pod.Spec.Containers[0].Command = []string{"sh", "-c", script} }
}

// as has the pod run as a user, with a group for its volumes.
func as(user, group int64) podOption {
	return func(pod *corev1.Pod) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, FSGroup: &group}
	}
}

// pod asks for a pod.
func (s *scene) pod(name string, how ...podOption) {
	grace, token := int64(1), false
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace, // a shell that is process 1 hears no SIGTERM
			AutomountServiceAccountToken:  &token,
			Containers: []corev1.Container{{
				Name:    "main",
				Image:   s.settings.image,
				Command: []string{"sleep", "infinity"},
			}},
		},
	}
	for _, change := range how {
		change(pod)
	}
	_, err := s.api.CoreV1().Pods(s.ns).Create(s.ctx, pod, metav1.CreateOptions{})
	s.must(err, "create pod %s", name)
}

// start asks for a pod and waits until it runs. It returns its node.
func (s *scene) start(name string, how ...podOption) string {
	s.pod(name, how...)
	return s.running(name)
}

// running waits until a pod runs, and returns its node.
func (s *scene) running(name string) (node string) {
	s.until(patience, "pod "+name+" runs", func() string {
		pod, err := s.getPod(name)
		if err != nil {
			return err.Error()
		}
		node = pod.Spec.NodeName
		return notReady(pod)
	})
	return node
}

func (s *scene) getPod(name string) (*corev1.Pod, error) {
	return s.api.CoreV1().Pods(s.ns).Get(s.ctx, name, metav1.GetOptions{})
}

// notReady says what a pod waits for, or "".
func notReady(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return "it is being deleted"
	}
	var waits []string
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return ""
		}
		if condition.Status != corev1.ConditionTrue && condition.Message != "" {
			waits = append(waits, condition.Message)
		}
	}
	return strings.TrimSpace(string(pod.Status.Phase) + " on " + pod.Spec.NodeName + ": " + strings.Join(waits, "; "))
}

// pending waits until the scheduler finds no node for a pod and says why, and sees that it
// stays so.
func (s *scene) pending(name string, words ...string) {
	s.told("Pod", name, words...)
	s.throughout(3*time.Second, func() string {
		pod, err := s.getPod(name)
		switch {
		case err != nil:
			return err.Error()
		case pod.Spec.NodeName != "":
			return fmt.Sprintf("pod %s is on %s, and should wait", name, pod.Spec.NodeName)
		}
		return ""
	})
}

// stop deletes a pod and waits until it is gone.
func (s *scene) stop(name string) {
	s.must(s.api.CoreV1().Pods(s.ns).Delete(s.ctx, name, metav1.DeleteOptions{}), "delete pod %s", name)
	s.until(patience, "pod "+name+" is gone", func() string {
		_, err := s.getPod(name)
		return gone(err, "it")
	})
}

// sh runs a script in a pod and returns what it prints.
func (s *scene) sh(pod, script string) string {
	said, err := s.execInPod(s.ctx, s.ns, pod, "main", "sh", "-c", script)
	s.must(err, "in pod %s, %s", pod, script)
	return strings.TrimSpace(said)
}

// number is what a script in a pod prints.
func (s *scene) number(pod, script string) int64 {
	said := s.sh(pod, script)
	n, err := strconv.ParseInt(said, 10, 64)
	s.must(err, "in pod %s, %s", pod, script)
	return n
}

// expect compares what is with what should be.
func expect[T comparable](s *scene, what string, have, want T) {
	if have != want {
		s.fail("%s is %v, want %v", what, have, want)
	}
}

// fileSystemSize sees that a file system is as large as was asked for, less what it keeps
// for itself.
func (s *scene) fileSystemSize(pod, path, size string) {
	want := bytesOf(size)
	have := s.number(pod, "echo $(($(stat -f -c '%b * %S' "+path+")))")
	if have > want || have < want*80/100 {
		s.fail("%s has %d MiB, and %s was asked for", path, have>>20, size)
	}
}

// mounted returns the type and the options of a mount.
func (s *scene) mounted(pod, path string) (kind, options string) {
	line := strings.Fields(s.sh(pod, fmt.Sprintf("awk '$2 == %q { print $3, $4 }' /proc/mounts", path)))
	if len(line) != 2 {
		s.fail("nothing is mounted at %s of pod %s", path, pod)
	}
	return line[0], line[1]
}
