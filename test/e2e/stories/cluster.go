package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The names of the driver that the world sees.
const (
	driver      = "csi-dmthin.dev"
	topologyKey = driver + "/node"
)

// A cluster is where the stories take place.
type cluster struct {
	settings settings
	config   *rest.Config
	api      kubernetes.Interface
	objects  dynamic.Interface

	namespace     string   // of the driver
	nodes         []string // that have the driver and take pods
	classes       map[string]storagev1.StorageClass
	snapshotClass string // "" if there is none, or no snapshots at all
}

// connect finds the cluster of KUBECONFIG.
func connect(ctx context.Context, set settings) (*cluster, error) {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200 // four stories look around several times a second
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if _, err := api.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
		return nil, err
	}
	return &cluster{settings: set, config: config, api: api, objects: objects, namespace: releaseNamespace}, nil
}

// lookAround learns what the stories have to do with.
func (c *cluster) lookAround(ctx context.Context) error {
	agents, err := c.api.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: agentLabels})
	if err != nil {
		return err
	}
	if len(agents.Items) == 0 {
		return errors.New("no agent of the driver runs here: install it, or give its chart with -chart")
	}
	c.namespace = agents.Items[0].Namespace
	nodes, err := c.api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, node := range nodes.Items {
		has := slices.ContainsFunc(agents.Items, func(p corev1.Pod) bool { return p.Spec.NodeName == node.Name })
		if has && takesPods(node) {
			c.nodes = append(c.nodes, node.Name)
		}
	}
	classes, err := c.api.StorageV1().StorageClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	c.classes = map[string]storagev1.StorageClass{}
	for _, class := range classes.Items {
		if class.Provisioner == driver {
			c.classes[class.Name] = class
		}
	}
	c.snapshotClass = c.findSnapshotClass(ctx)
	return nil
}

func takesPods(node corev1.Node) bool {
	return !node.Spec.Unschedulable && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule
	})
}

func (c *cluster) findSnapshotClass(ctx context.Context) string {
	list, err := c.objects.Resource(snapshotClasses).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "" // the cluster does not know the kind
	}
	for _, class := range list.Items {
		if class.Object["driver"] == driver {
			return class.GetName()
		}
	}
	return ""
}

// What stories need.

func twoNodes(c *cluster) string {
	if len(c.nodes) < 2 {
		return fmt.Sprintf("it takes two nodes that have an agent and take pods, and there is %v", c.nodes)
	}
	return ""
}

func snapshots(c *cluster) string {
	if c.snapshotClass == "" {
		return "there is no VolumeSnapshotClass of " + driver
	}
	return ""
}

func class(name string) need {
	return func(c *cluster) string {
		if _, ok := c.classes[name]; !ok {
			return fmt.Sprintf("there is no StorageClass %s of %s", name, driver)
		}
		return ""
	}
}

func chart(c *cluster) string {
	if c.settings.chart == "" {
		return "it takes the chart: -chart"
	}
	return ""
}

func variables(names ...string) need {
	return func(*cluster) string {
		var missing []string
		for _, name := range names {
			if os.Getenv(name) == "" {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return "not set: " + strings.Join(missing, ", ")
		}
		return ""
	}
}
