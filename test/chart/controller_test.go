package chart

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// flags are those of each container of the controller, by default.
var flags = map[string][]string{
	"gateway": {
		"controller", "--endpoint=unix:///csi/csi.sock", "--listen=:9443", "--http=:9808", "--namespace=$(POD_NAMESPACE)",
		"--node-service-account=csi-dmthin-node", "--ca-configmap=csi-dmthin-ca", "--tls-secret=csi-dmthin-controller-tls",
		"--lost-dir=/etc/csi-dmthin/lost", "--log-format=text", "-v=2",
	},
	"provisioner": {
		"--csi-address=/csi/csi.sock", "--http-endpoint=:9809", "--leader-election", "--strict-topology=false",
		"--immediate-topology=false", "--enable-capacity", "--capacity-ownerref-level=2", "--capacity-poll-interval=30s",
		"--capacity-threads=4", "--kube-api-capacity-qps=20", "--kube-api-capacity-burst=40", "--kube-api-qps=50",
		"--kube-api-burst=100", "--timeout=60s", "--retry-interval-max=30s", "--extra-create-metadata", "--default-fstype=ext4", "--v=2",
	},
	"snapshotter": {
		"--csi-address=/csi/csi.sock", "--http-endpoint=:9810", "--leader-election", "--timeout=60s", "--retry-interval-max=30s",
		"--extra-create-metadata", "--v=2",
	},
	"resizer": {
		"--csi-address=/csi/csi.sock", "--http-endpoint=:9811", "--leader-election", "--resize-timeout=60s", "--retry-interval-max=30s",
		"--handle-volume-inuse-error=false", "--v=2",
	},
}

func TestFlags(t *testing.T) {
	pod := theOnly[*appsv1.Deployment](t, usual.objects(t, withSnapshots)).Spec.Template.Spec
	have := map[string][]string{}
	for _, c := range containersOf(pod) {
		have[c.Name] = c.Args
	}
	if !maps.EqualFunc(have, flags, slices.Equal) {
		t.Errorf("have the flags\n%q\nwant\n%q", have, flags)
	}
}

// Nobody elects in a controller of one, and it logs as it is told.
func TestSingle(t *testing.T) {
	all := usual.objects(t, readValues(t, chartDir+"/ci/single-values.yaml"))
	d := theOnly[*appsv1.Deployment](t, all)
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("two could work at a time: %v %v", *d.Spec.Replicas, d.Spec.Strategy)
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		if slices.Contains(c.Args, "--leader-election") || c.LivenessProbe != nil {
			t.Errorf("%s elects", c.Name)
		}
		if !slices.Contains(c.Args, "--logging-format=json") || !slices.Contains(c.Args, "--v=4") {
			t.Errorf("%s logs by %q", c.Name, c.Args)
		}
	}
	if len(allOf[*policyv1.PodDisruptionBudget](all)) > 0 {
		t.Error("there is a PodDisruptionBudget")
	}
}

func TestController(t *testing.T) {
	forEachFile(t, func(t *testing.T, _ map[string]any, all objects) {
		d := theOnly[*appsv1.Deployment](t, all)
		pod := d.Spec.Template
		if d.Spec.MinReadySeconds != 45 {
			t.Errorf("agents have %d s to find a new replica", d.Spec.MinReadySeconds)
		}
		gateway := pod.Spec.InitContainers[0]
		if len(pod.Spec.InitContainers) != 1 || gateway.RestartPolicy == nil || *gateway.RestartPolicy != corev1.ContainerRestartPolicyAlways || gateway.StartupProbe == nil {
			t.Error("the gateway is no native sidecar that is waited for")
		}
		s := pod.Spec.SecurityContext
		if !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("the controller runs with %v", s)
		}
		for _, c := range containersOf(pod.Spec) {
			s := c.SecurityContext
			if *s.AllowPrivilegeEscalation || s.Privileged != nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.Capabilities.Add != nil {
				t.Errorf("%s may more than it needs: %v", c.Name, s)
			}
		}
		for _, v := range pod.Spec.Volumes {
			if v.HostPath != nil {
				t.Errorf("the controller has %s of its node", v.HostPath.Path)
			}
		}
		if spread := pod.Spec.TopologySpreadConstraints; len(spread) != 1 || spread[0].WhenUnsatisfiable != corev1.ScheduleAnyway {
			t.Errorf("the spread is %v: a cluster of one node has place for one replica", spread)
		}
		if pod.Labels["sidecar.istio.io/inject"] != "false" || pod.Annotations["linkerd.io/inject"] != "disabled" {
			t.Error("a mesh may get in between")
		}
		checkService(t, all, pod)
	})
}

func checkService(t *testing.T, all objects, pod corev1.PodTemplateSpec) {
	t.Helper()
	s := theOnly[*corev1.Service](t, all)
	if s.Spec.ClusterIP != corev1.ClusterIPNone || !s.Spec.PublishNotReadyAddresses {
		t.Errorf("agents would not find each replica by %v", s.Spec)
	}
	if p := s.Spec.Ports[0]; p.Port != 9443 || p.TargetPort.StrVal != "agents" || *p.AppProtocol != "tls" {
		t.Errorf("the port is %v", p)
	}
	if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
		t.Errorf("the Service has no pods: it selects %v", s.Spec.Selector)
	}
	for _, agents := range allOf[*appsv1.DaemonSet](all) {
		if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(agents.Spec.Template.Labels)) {
			t.Error("the Service has the agents for controllers")
		}
	}
	for _, file := range allOf[*corev1.ConfigMap](all) {
		if have := checkAgentFile(t, file).Controller; have != s.Name+":9443" {
			t.Errorf("agents dial %s, and the controller is %s", have, s.Name)
		}
	}
}

// Where snapshots are, there is all of it, and else nothing.
func TestSnapshots(t *testing.T) {
	for _, c := range []struct {
		enabled string
		apis    []string
		want    bool
	}{
		{"auto", nil, false}, {"auto", []string{snapshotAPI}, true}, {"auto", []string{"snapshot.storage.k8s.io/v1beta1"}, false},
		{"always", nil, true}, {"never", []string{snapshotAPI}, false},
	} {
		r := usual
		r.apis = c.apis
		values := map[string]any{"snapshotter": map[string]any{"enabled": c.enabled}}
		all := r.objects(t, values)
		d := theOnly[*appsv1.Deployment](t, all)
		there := map[string]bool{
			"the sidecar": slices.ContainsFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return c.Name == "snapshotter" }),
			"its role":    slices.ContainsFunc(allOf[*rbacv1.ClusterRole](all), func(r *rbacv1.ClusterRole) bool { return r.Name == "csi-dmthin-snapshotter" }),
			"the class":   len(allOf[*volumeSnapshotClass](all)) == 1,
		}
		for what, is := range there {
			if is != c.want {
				t.Errorf("%s with %q: is %s there? %v", c.enabled, c.apis, what, is)
			}
		}
		files, err := r.render(t, values)
		if err != nil || strings.Contains(files["NOTES.txt"], "There are no snapshots") == c.want {
			t.Errorf("%s with %q: the notes say\n%s\n(%v)", c.enabled, c.apis, files["NOTES.txt"], err)
		}
	}
}

func TestRoles(t *testing.T) {
	forEachFile(t, func(t *testing.T, _ map[string]any, all objects) {
		roles := map[string][]rbacv1.PolicyRule{}
		for _, r := range allOf[*rbacv1.ClusterRole](all) {
			roles["ClusterRole "+r.Name] = r.Rules
		}
		for _, r := range allOf[*rbacv1.Role](all) {
			roles["Role "+r.Name] = r.Rules
		}
		unbound := maps.Clone(roles)
		controller := theOnly[*appsv1.Deployment](t, all).Spec.Template.Spec.ServiceAccountName
		bind := func(ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
			delete(unbound, ref.Kind+" "+ref.Name)
			want := rbacv1.Subject{Kind: "ServiceAccount", Name: controller, Namespace: usual.namespace}
			if !slices.Equal(subjects, []rbacv1.Subject{want}) {
				t.Errorf("%s is bound to %v", ref.Name, subjects)
			}
		}
		for _, b := range allOf[*rbacv1.ClusterRoleBinding](all) {
			bind(b.RoleRef, b.Subjects)
		}
		for _, b := range allOf[*rbacv1.RoleBinding](all) {
			bind(b.RoleRef, b.Subjects)
		}
		if len(unbound) > 0 {
			t.Errorf("nobody has the roles %v", slices.Collect(maps.Keys(unbound)))
		}
		for name, rules := range roles {
			for _, rule := range rules {
				checkRule(t, name, rule)
			}
		}
	})
}

func checkRule(t *testing.T, role string, rule rbacv1.PolicyRule) {
	t.Helper()
	if slices.Contains(slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs), "*") {
		t.Errorf("%s: a rule for everything: %v", role, rule)
	}
	if slices.Contains(rule.Resources, "secrets") || slices.Contains(rule.Resources, "configmaps") {
		if !strings.HasPrefix(role, "Role ") || len(rule.ResourceNames) != 1 && !slices.Equal(rule.Verbs, []string{"create"}) {
			t.Errorf("%s: reads or writes what is not its own: %v", role, rule)
		}
	}
}

// How the controller proves who it is.
func TestCertificates(t *testing.T) {
	for file, secret := range map[string]string{"default": "", "cert-manager": "csi-dmthin-controller-cert", "existing-secret": "made-elsewhere"} {
		all := usual.objects(t, readValues(t, chartDir+"/ci/"+file+"-values.yaml"))
		pod := theOnly[*appsv1.Deployment](t, all).Spec.Template.Spec
		gateway := pod.InitContainers[0]
		mounted := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == secret })
		own := slices.Contains(gateway.Args, "--tls-secret=csi-dmthin-controller-tls")
		given := slices.Contains(gateway.Args, "--tls-dir=/etc/csi-dmthin/tls")
		mayWrite := slices.ContainsFunc(theOnly[*rbacv1.Role](t, all).Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "secrets") })
		if isGiven := secret != ""; mounted != isGiven || given != isGiven || own == isGiven || mayWrite == isGiven {
			t.Errorf("%s: mounted %v, --tls-dir %v, --tls-secret %v, may write Secrets %v", file, mounted, given, own, mayWrite)
		}
	}
	all := usual.objects(t, readValues(t, chartDir+"/ci/cert-manager-values.yaml"))
	c := theOnly[*certificate](t, all).Spec
	if !slices.Equal(c.DNSNames, []string{"csi-dmthin-controller"}) || c.SecretName != "csi-dmthin-controller-cert" || c.RenewBefore.Duration >= c.Duration.Duration || c.Duration.Duration < 24*time.Hour || c.IssuerRef["name"] != "internal" {
		t.Errorf("the certificate is %+v", c)
	}
}

func TestNetworkPolicyAndMonitors(t *testing.T) {
	r := usual
	r.apis = []string{prometheusAPI}
	all := r.objects(t, readValues(t, chartDir+"/ci/everything-values.yaml"))
	pods := podsOf(all)
	for _, component := range []string{"controller", "node"} {
		pod := pods["thin-"+component]
		ports := map[string]bool{}
		for _, c := range containersOf(pod.Spec) {
			for _, p := range c.Ports {
				ports[p.Name] = true
			}
		}
		policy := named[*networkingv1.NetworkPolicy](t, all, "thin-"+component)
		open := map[string]bool{}
		for _, rule := range policy.Spec.Ingress {
			for _, p := range rule.Ports {
				open[p.Port.StrVal] = true
			}
			if len(rule.From) != 1 {
				t.Errorf("%s: whoever comes gets in: %v", component, rule)
			}
		}
		if !maps.Equal(ports, open) || !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}) {
			t.Errorf("%s has the ports %v, and %v are open", component, ports, open)
		}
		monitor := named[*podMonitor](t, all, "thin-"+component)
		for _, endpoint := range monitor.Spec.PodMetricsEndpoints {
			delete(open, endpoint.Port)
		}
		if delete(open, "agents"); len(open) > 0 {
			t.Errorf("%s: metrics of %v are not read", component, open)
		}
		for _, selector := range []map[string]string{policy.Spec.PodSelector.MatchLabels, monitor.Spec.Selector.MatchLabels} {
			if !labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
				t.Errorf("%v are no pods of %s", selector, component)
			}
		}
	}
	if monitors := allOf[*podMonitor](usual.objects(t, readValues(t, chartDir+"/ci/everything-values.yaml"))); len(monitors) > 0 {
		t.Error("there are PodMonitors on a cluster that does not know them")
	}
}
