package main

import (
	"context"
	"path/filepath"
	"time"
)

// startControlPlane starts it and waits until it answers.
func startControlPlane(ctx context.Context, p *Plan) error {
	if err := startDaemon(p, "etcd", etcdArgs()...); err != nil {
		return err
	}
	if err := startDaemon(p, "kube-apiserver", p.gated(apiserverArgs())...); err != nil {
		return err
	}
	api, err := newAPI()
	if err != nil {
		return err
	}
	if err := poll(ctx, time.Minute, "API server (see "+logs()+"/kube-apiserver.log)", func() error { return api.get(ctx, "/readyz", nil) }); err != nil {
		return err
	}
	if err := startDaemon(p, "kube-controller-manager", p.gated(controllerManagerArgs())...); err != nil {
		return err
	}
	return startDaemon(p, "kube-scheduler", p.gated(schedulerArgs())...)
}

// gated adds the feature gates, if there are any.
func (p *Plan) gated(args []string) []string {
	if p.FeatureGates != "" {
		args = append(args, "--feature-gates="+p.FeatureGates)
	}
	return args
}

func etcdArgs() []string {
	return []string{
		"--data-dir=" + filepath.Join(home, "etcd"),
		"--unsafe-no-fsync", // the control plane outlives no power failure
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
	}
}

func apiserverArgs() []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=" + gateway,
		"--advertise-address=" + gateway,
		"--client-ca-file=" + secrets("ca.crt"),
		"--tls-cert-file=" + secrets("apiserver.crt"),
		"--tls-private-key-file=" + secrets("apiserver.key"),
		"--kubelet-client-certificate=" + secrets("kubelet-client.crt"),
		"--kubelet-client-key=" + secrets("kubelet-client.key"),
		"--kubelet-certificate-authority=" + secrets("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + secrets("accounts.crt"),
		"--service-account-signing-key-file=" + secrets("accounts.key"),
		"--service-cluster-ip-range=" + services,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		// Here are no Services, so webhooks are called at their pods' addresses.
		"--enable-aggregator-routing",
	}
}

func controllerManagerArgs() []string {
	return []string{
		"--kubeconfig=" + kubeconfig("controller-manager"),
		"--service-account-private-key-file=" + secrets("accounts.key"),
		"--use-service-account-credentials",
		"--root-ca-file=" + secrets("ca.crt"), // pods know the API server by it
		"--cluster-signing-cert-file=" + secrets("ca.crt"),
		"--cluster-signing-key-file=" + secrets("ca.key"),
		"--leader-elect=false",
		// At the usual 20 a second it takes 5 s until each controller has its account.
		"--kube-api-qps=500",
		"--kube-api-burst=500",
		"--secure-port=0", // nobody asks it anything
	}
}

func schedulerArgs() []string {
	return []string{"--kubeconfig=" + kubeconfig("scheduler"), "--leader-elect=false", "--secure-port=0"}
}
