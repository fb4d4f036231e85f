package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	releaseName      = "csi-dmthin"
	releaseNamespace = "csi-dmthin"
	agentLabels      = "app.kubernetes.io/name=csi-dmthin,app.kubernetes.io/component=node"
	controllerLabels = "app.kubernetes.io/name=csi-dmthin,app.kubernetes.io/component=controller"
)

//go:embed values.yaml
var ownValues []byte

// install brings the release to what the chart and the values say, and waits for it.
func (c *cluster) install(ctx context.Context) error {
	begin := time.Now()
	// As the chart's README has it: agents are privileged.
	_, err := c.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   releaseNamespace,
		Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := c.upgrade(ctx); err != nil {
		return err
	}
	err = performed(func() { (&scene{cluster: c, ctx: ctx}).driverReady() })
	if err != nil {
		return fmt.Errorf("the release: %w\n%s", err, c.describePods(ctx, c.namespace))
	}
	fmt.Printf("installed in %v\n", seconds(time.Since(begin)))
	return nil
}

// upgrade installs the release, or changes it to what is set.
func (c *cluster) upgrade(ctx context.Context, set ...string) error {
	values := c.settings.values
	if values == "" {
		file, err := os.CreateTemp("", "values-*.yaml")
		if err != nil {
			return err
		}
		defer os.Remove(file.Name())
		if _, err := file.Write(ownValues); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		values = file.Name()
	}
	args := []string{"helm", "upgrade", "--install", releaseName, c.settings.chart, "--namespace", releaseNamespace, "--values", values}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	_, err := output(ctx, args...)
	return err
}

// rollback brings the release back to what it was before the last upgrade.
func (c *cluster) rollback(ctx context.Context) error {
	_, err := output(ctx, "helm", "rollback", releaseName, "--namespace", releaseNamespace)
	return err
}

func (c *cluster) uninstall(ctx context.Context) error {
	_, err := output(ctx, "helm", "uninstall", releaseName, "--namespace", releaseNamespace)
	return err
}

// driverReady waits until the driver can be used: all agents run, the controller leads,
// and the scheduler knows how much room there is.
func (s *scene) driverReady() {
	s.agentsReady()
	s.until(patience, "the controller is ready", func() string {
		pods, err := s.driverPods(controllerLabels)
		if err != nil {
			return err.Error()
		}
		for _, pod := range pods {
			if why := notReady(&pod); why != "" {
				return pod.Name + ": " + why
			}
		}
		return none(len(pods), "there is no pod")
	})
	s.until(patience, "capacities are known", func() string {
		list, err := s.api.StorageV1().CSIStorageCapacities("").List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		return none(len(list.Items), "there are none")
	})
}

func none(n int, why string) string {
	if n == 0 {
		return why
	}
	return ""
}

// agentsReady waits until each node that is to have an agent has one, of the latest kind.
func (s *scene) agentsReady() {
	s.until(patience, "the agents are ready", func() string {
		sets, err := s.api.AppsV1().DaemonSets(s.namespace).List(s.ctx, metav1.ListOptions{LabelSelector: agentLabels})
		if err != nil {
			return err.Error()
		}
		for _, set := range sets.Items {
			if why := notRolledOut(set); why != "" {
				return set.Name + ": " + why
			}
		}
		return none(len(sets.Items), "there is no DaemonSet")
	})
}

func notRolledOut(set appsv1.DaemonSet) string {
	have, want := set.Status, set.Status.DesiredNumberScheduled
	if have.ObservedGeneration < set.Generation || want == 0 || have.UpdatedNumberScheduled < want || have.NumberReady < want {
		return fmt.Sprintf("%d of %d are new, and %d are ready", have.UpdatedNumberScheduled, want, have.NumberReady)
	}
	return ""
}

func (c *cluster) driverPods(labels string) ([]corev1.Pod, error) {
	list, err := c.api.CoreV1().Pods(c.namespace).List(context.Background(), metav1.ListOptions{LabelSelector: labels})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
