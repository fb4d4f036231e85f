package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// details tells what there is to know about a story that failed.
func (s *scene) details() string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 30*time.Second)
	defer cancel()
	return "namespace " + s.ns + "\n" +
		s.describePods(ctx, s.ns) +
		s.describeClaims(ctx) +
		s.describeEvents(ctx, s.ns, 25) +
		"the driver:\n" +
		s.describePods(ctx, s.namespace) +
		s.describeEvents(ctx, s.namespace, 5)
}

func (c *cluster) describePods(ctx context.Context, ns string) string {
	list, err := c.api.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error() + "\n"
	}
	var text strings.Builder
	for _, pod := range list.Items {
		fmt.Fprintf(&text, "pod %s %s on %s", pod.Name, pod.Status.Phase, pod.Spec.NodeName)
		if why := notReady(&pod); why != "" {
			fmt.Fprintf(&text, ": %s", why)
		}
		for _, state := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			text.WriteString(describeContainer(state))
		}
		text.WriteString("\n")
	}
	return text.String()
}

// describeContainer is "" for a container that runs and always did.
func describeContainer(c corev1.ContainerStatus) string {
	var text string
	if c.RestartCount > 0 {
		text = fmt.Sprintf(", %s restarted %d times", c.Name, c.RestartCount)
	}
	if w := c.State.Waiting; w != nil {
		text += fmt.Sprintf(", %s waits: %s %s", c.Name, w.Reason, w.Message)
	}
	for _, t := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
		if t != nil {
			text += fmt.Sprintf(", %s ended: %s, status %d %s", c.Name, t.Reason, t.ExitCode, t.Message)
		}
	}
	return text
}

func (s *scene) describeClaims(ctx context.Context) string {
	list, err := s.api.CoreV1().PersistentVolumeClaims(s.ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error() + "\n"
	}
	var text strings.Builder
	for _, claim := range list.Items {
		fmt.Fprintf(&text, "claim %s %s %s", claim.Name, claim.Status.Phase, claim.Spec.VolumeName)
		for _, condition := range claim.Status.Conditions {
			fmt.Fprintf(&text, ", %s: %s", condition.Type, condition.Message)
		}
		text.WriteString("\n")
	}
	return text.String()
}

// describeEvents has the newest events last.
func (c *cluster) describeEvents(ctx context.Context, ns string, most int) string {
	list, err := c.api.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error() + "\n"
	}
	events := list.Items
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return cmp.Compare(when(a).UnixNano(), when(b).UnixNano()) })
	var text strings.Builder
	for _, e := range events[max(0, len(events)-most):] {
		fmt.Fprintf(&text, "%s %s %s %s: %s\n", when(e).Format(time.TimeOnly), e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return text.String()
}

// when is the time of an event's last occurrence, which its two APIs tell differently.
func when(e corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}
