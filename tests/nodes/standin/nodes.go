package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	beat = 3 * time.Second
	// After so long without a word of it a node counts as lost.
	lost = 15 * time.Second
	// Where the API server keeps what proves a node to be the same as before.
	passwords = "/api/v1/namespaces/kube-system/secrets/"
)

// node is what a node tells of itself.
type node struct {
	Name, Address, Password, Version string
	Labels                           map[string]string
	Taints                           []map[string]string
	Network, Server, Etcd            bool
}

type object = map[string]any

// heartbeat tells of this node for ever.
func heartbeat(c configuration, tell func(node) error) {
	for {
		if err := tell(describe(c)); err != nil {
			complain("%v", err)
		}
		time.Sleep(beat)
	}
}

func describe(c configuration) node {
	self := node{Name: c.name(), Address: c.address(), Version: version, Labels: map[string]string{}, Password: ownPassword()}
	for _, label := range c.list("node-label") {
		name, value, _ := strings.Cut(label, "=")
		self.Labels[name] = value
	}
	for _, taint := range c.list("node-taint") {
		name, effect, _ := strings.Cut(taint, ":")
		name, value, _ := strings.Cut(name, "=")
		self.Taints = append(self.Taints, map[string]string{"key": name, "value": value, "effect": effect})
	}
	for _, folder := range []string{"/etc/cni/net.d", filepath.Join(c.data(), "agent/etc/cni/net.d")} {
		files, _ := filepath.Glob(folder + "/*.conf*")
		self.Network = self.Network || len(files) > 0
	}
	return self
}

func ownPassword() string {
	file := "/etc/rancher/node/password"
	if known, err := os.ReadFile(file); err == nil {
		return strings.TrimSpace(string(known))
	}
	random := make([]byte, 16)
	_, _ = rand.Read(random)
	must(os.MkdirAll(filepath.Dir(file), 0o755))
	must(os.WriteFile(file, fmt.Appendf(nil, "%x\n", random), 0o600))
	return fmt.Sprintf("%x", random)
}

// register makes the object of a node that is new, with its labels and taints, and says how each is.
func (s *server) register(self node) error {
	if self.Name == s.name() {
		self.Server, self.Etcd = true, inUse(s.configuration)
	}
	if err := s.prove(self); err != nil {
		return err
	}
	path := "/api/v1/nodes/" + self.Name
	if found, err := s.call(http.MethodGet, path, nil, nil); err != nil {
		return err
	} else if !found {
		if _, err := s.call(http.MethodPost, "/api/v1/nodes", self.object(), nil); err != nil {
			return err
		}
	}
	conditions := []object{self.ready(s.text("flannel-backend", "vxlan") != "none")}
	if self.Etcd {
		conditions = append(conditions, condition("EtcdIsVoter", "True", "MemberNotLearner", "Node is a voting member of the etcd cluster"))
	}
	status := object{
		"addresses":  []object{{"type": "InternalIP", "address": self.Address}, {"type": "Hostname", "address": self.Name}},
		"conditions": conditions,
		"nodeInfo": object{
			"architecture": runtime.GOARCH, "operatingSystem": "linux", "osImage": "stand-in", "machineID": "", "systemUUID": "",
			"bootID": "", "kernelVersion": "", "containerRuntimeVersion": "stand-in://", "kubeletVersion": self.Version, "kubeProxyVersion": "",
		},
	}
	_, err := s.call(http.MethodPatch, path+"/status", object{"status": status}, nil)
	return err
}

// prove refuses a node that takes another's name.
func (s *server) prove(self node) error {
	name := self.Name + ".node-password.k3s"
	secret := struct{ Data map[string]string }{}
	found, err := s.call(http.MethodGet, passwords+name, nil, &secret)
	if err != nil {
		return err
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(self.Password))
	if !found {
		_, err = s.call(http.MethodPost, strings.TrimSuffix(passwords, "/"),
			object{"metadata": object{"name": name}, "data": object{"hash": encoded}}, nil)
		return err
	}
	if secret.Data["hash"] != encoded {
		return fmt.Errorf("Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match" +
			" server node-passwd entry, try enabling a unique node name with the --with-node-id flag")
	}
	return nil
}

func (n node) object() object {
	labels := object{
		"kubernetes.io/hostname": n.Name, "kubernetes.io/os": "linux", "kubernetes.io/arch": runtime.GOARCH,
		"node.kubernetes.io/instance-type": "k3s",
	}
	if n.Server {
		labels["node-role.kubernetes.io/control-plane"] = "true"
	}
	if n.Etcd {
		labels["node-role.kubernetes.io/etcd"] = "true"
	}
	for name, value := range n.Labels {
		labels[name] = value
	}
	return object{"metadata": object{"name": n.Name, "labels": labels}, "spec": object{"taints": n.Taints}}
}

func (n node) ready(flannel bool) object {
	if n.Network || flannel {
		return condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")
	}
	return condition("Ready", "False", "KubeletNotReady", "container runtime network not ready: NetworkReady=false"+
		" reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized")
}

func condition(kind, status, reason, message string) object {
	now := time.Now().UTC().Format(time.RFC3339)
	return object{"type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now}
}

type listed struct {
	Items []struct {
		Metadata struct{ Name string }
		Status   struct {
			Conditions []struct {
				Type, Status      string
				LastHeartbeatTime time.Time
			}
		}
	}
}

// watchNodes does what a cluster does about nodes that are lost, or deleted.
func (s *server) watchNodes() {
	for ; ; time.Sleep(beat) {
		list := listed{}
		if _, err := s.call(http.MethodGet, "/api/v1/nodes", nil, &list); err != nil {
			complain("%v", err)
			continue
		}
		present := map[string]bool{}
		for _, each := range list.Items {
			present[each.Metadata.Name] = true
			for _, one := range each.Status.Conditions {
				if one.Type == "Ready" && one.Status != "Unknown" && time.Since(one.LastHeartbeatTime) > lost {
					status := condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
					status["lastHeartbeatTime"] = one.LastHeartbeatTime
					patch := object{"status": object{"conditions": []object{status}}}
					_, _ = s.call(http.MethodPatch, "/api/v1/nodes/"+each.Metadata.Name+"/status", patch, nil)
				}
			}
		}
		for name := range s.known {
			if !present[name] && name != s.name() {
				s.forget(name)
			}
		}
		s.known = present
	}
}

// forget removes what else there is of a node that was deleted.
func (s *server) forget(name string) {
	_, _ = s.call(http.MethodDelete, passwords+name+".node-password.k3s", nil, nil)
	members, err := s.etcd.members()
	if err != nil {
		return
	}
	for _, each := range members {
		if each.Name == name {
			_ = s.etcd.call("member/remove", map[string]string{"ID": each.ID}, nil)
		}
	}
}
