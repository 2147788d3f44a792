package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Of the API server itself, on loopback; all others come by the supervisor's port, 6443.
const api = "https://127.0.0.1:6444"

type server struct {
	configuration
	password string
	tls      string
	etcd     etcd
	client   *http.Client
	// Nodes that this server has seen.
	known map[string]bool
}

func serve(c configuration) {
	s := &server{configuration: c, tls: filepath.Join(c.data(), "server/tls"), known: map[string]bool{}}
	listener, err := net.Listen("tcp", net.JoinHostPort(c.text("bind-address", ""), c.port()))
	if err != nil {
		fatal("starting kubernetes: preparing server: init dynamic listener: %v", err)
	}
	first := s.prepare()
	names := []string{"127.0.0.1", "localhost", "kubernetes.default.svc", s.name(), s.address(), s.serviceAddress()}
	makeOwn(s.tls, append(names, s.list("tls-san")...))
	s.writeTokens()
	s.writeKubeconfig()
	pair, err := tls.LoadX509KeyPair(s.file("client-admin.crt"), s.file("client-admin.key"))
	must(err)
	s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: pool(s.file("server-ca.crt")), Certificates: []tls.Certificate{pair}}}}
	go s.listen(listener)
	s.etcd.start(s.configuration, first)
	start("kube-apiserver", s.flags()...)
	for !s.isReady() {
		time.Sleep(200 * time.Millisecond)
	}
	go s.watchNodes()
	go heartbeat(s.configuration, func(self node) error { return s.register(self) })
	ready()
}

// prepare finds what the cluster shares: made here, kept, or fetched from the server that is to be joined. It returns the
// members of etcd that a new one is to know.
func (s *server) prepare() string {
	password, hash := s.token()
	kept, err := os.ReadFile(filepath.Join(s.data(), "server/token"))
	if err == nil {
		_, old, _ := strings.Cut(strings.TrimSpace(string(kept)), "::server:")
		if password != "" && password != old {
			fatal("starting kubernetes: preparing server: bootstrap data already found and encrypted with different token")
		}
		s.password = old
	} else if s.password = password; password == "" {
		random := make([]byte, 16)
		_, _ = rand.Read(random)
		s.password = fmt.Sprintf("%x", random)
	}
	first := s.text("server", "")
	if first == "" || exists(filepath.Join(store(s.configuration), "member")) {
		makeShared(s.tls)
		return ""
	}
	if password == "" {
		fatal("starting kubernetes: preparing server: --token is required to join a cluster")
	}
	authority := trust(first, hash)
	bundle := map[string]string{}
	if err := ask(first, authority, "server", password, "server-bootstrap", nil, &bundle); err != nil {
		fatal("starting kubernetes: preparing server: failed to bootstrap cluster data: %v", err)
	}
	must(os.MkdirAll(s.tls, 0o700))
	for name, text := range bundle {
		must(os.WriteFile(s.file(filepath.Base(name)), []byte(text), 0o600))
	}
	member := map[string]string{"name": s.name(), "peer": s.etcd.peer(s.configuration)}
	answer := map[string]string{}
	for {
		err := ask(first, authority, "server", password, "member", member, &answer)
		if err == nil {
			break
		}
		// etcd takes one learner at a time.
		complain("Waiting to join etcd: %v", err)
		time.Sleep(time.Second)
	}
	s.etcd.promote = func() error { return ask(first, authority, "server", password, "promote", member, nil) }
	return answer["members"]
}

func (c configuration) port() string {
	return c.text("https-listen-port", "6443")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *server) file(name string) string {
	return filepath.Join(s.tls, name)
}

func (s *server) serviceAddress() string {
	_, network, err := net.ParseCIDR(strings.Split(s.text("service-cidr", "10.43.0.0/16"), ",")[0])
	must(err)
	network.IP[len(network.IP)-1]++
	return network.IP.String()
}

func (s *server) flags() []string {
	return []string{
		"--advertise-address=" + s.address(),
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--authorization-mode=Node,RBAC",
		"--bind-address=127.0.0.1",
		// Its taint would be for the controller manager to remove, which is not there.
		"--disable-admission-plugins=TaintNodesByCondition",
		"--client-ca-file=" + s.file("client-ca.crt"),
		"--etcd-servers=" + etcdClient,
		"--requestheader-allowed-names=system:auth-proxy",
		"--requestheader-client-ca-file=" + s.file("request-header-ca.crt"),
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--secure-port=6444",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + s.file("service.key"),
		"--service-account-signing-key-file=" + s.file("service.key"),
		"--service-cluster-ip-range=" + s.text("service-cidr", "10.43.0.0/16"),
		"--tls-cert-file=" + s.file("serving-kube-apiserver.crt"),
		"--tls-private-key-file=" + s.file("serving-kube-apiserver.key"),
	}
}

func (s *server) writeTokens() {
	token := fmt.Sprintf("K10%s::server:%s\n", digest(content(s.file("server-ca.crt"))), s.password)
	folder := filepath.Join(s.data(), "server")
	must(os.WriteFile(filepath.Join(folder, "token"), []byte(token), 0o600))
	for _, link := range []string{"node-token", "agent-token"} {
		_ = os.Remove(filepath.Join(folder, link))
		must(os.Symlink(filepath.Join(folder, "token"), filepath.Join(folder, link)))
	}
}

func (s *server) writeKubeconfig() {
	encoded := func(name string) string { return base64.StdEncoding.EncodeToString([]byte(content(s.file(name)))) }
	type object = map[string]any
	cluster := object{"server": "https://127.0.0.1:" + s.port(), "certificate-authority-data": encoded("server-ca.crt")}
	user := object{"client-certificate-data": encoded("client-admin.crt"), "client-key-data": encoded("client-admin.key")}
	text, err := yaml.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "default", "preferences": object{},
		"clusters": []object{{"name": "default", "cluster": cluster}},
		"contexts": []object{{"name": "default", "context": object{"cluster": "default", "user": "default"}}},
		"users":    []object{{"name": "default", "user": user}},
	})
	must(err)
	path := s.text("write-kubeconfig", "/etc/rancher/k3s/k3s.yaml")
	mode, err := strconv.ParseUint(s.text("write-kubeconfig-mode", "600"), 8, 32)
	must(err)
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	must(os.WriteFile(path, text, os.FileMode(mode)))
	must(os.Chmod(path, os.FileMode(mode)))
}

// listen answers what nodes ask, and hands everything else to the API server, in the name of the client's certificate.
func (s *server) listen(listener net.Listener) {
	target, _ := url.Parse(api)
	pair, err := tls.LoadX509KeyPair(s.file("client-auth-proxy.crt"), s.file("client-auth-proxy.key"))
	must(err)
	trusted := pool(s.file("server-ca.crt"))
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{pair}}},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "starting", http.StatusServiceUnavailable)
		},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("X-Remote-User")
			r.Out.Header.Del("X-Remote-Group")
			if chains := r.In.TLS.VerifiedChains; len(chains) > 0 {
				r.Out.Header.Set("X-Remote-User", chains[0][0].Subject.CommonName)
				for _, group := range append(chains[0][0].Subject.Organization, "system:authenticated") {
					r.Out.Header.Add("X-Remote-Group", group)
				}
			}
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/ping", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "pong") })
	mux.HandleFunc("/cacerts", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, content(s.file("server-ca.crt"))) })
	mux.HandleFunc("/v1-k3s/server-bootstrap", s.withToken("server", func(_ []byte) (any, error) {
		bundle := map[string]string{}
		for _, name := range shared {
			bundle[name] = content(s.file(name))
		}
		return bundle, nil
	}))
	mux.HandleFunc("/v1-k3s/member", s.withToken("server", s.etcd.add))
	mux.HandleFunc("/v1-k3s/promote", s.withToken("server", s.etcd.promoteMember))
	mux.HandleFunc("/v1-k3s/node", s.withToken("node", func(body []byte) (any, error) {
		self := node{}
		if err := json.Unmarshal(body, &self); err != nil {
			return nil, err
		}
		return nil, s.register(self)
	}))
	serving, err := tls.LoadX509KeyPair(s.file("serving-kube-apiserver.crt"), s.file("serving-kube-apiserver.key"))
	must(err)
	config := &tls.Config{
		Certificates: []tls.Certificate{serving},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    pool(s.file("client-ca.crt")),
		NextProtos:   []string{"h2", "http/1.1"},
	}
	must((&http.Server{Handler: mux, TLSConfig: config}).ServeTLS(listener, "", ""))
}

// withToken lets in who has the token.
func (s *server) withToken(user string, answer func([]byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if name != user || password != s.password {
			http.Error(w, "not authorized", http.StatusUnauthorized)
			return
		}
		body := bytes.Buffer{}
		_, _ = body.ReadFrom(r.Body)
		answered, err := answer(body.Bytes())
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		_ = json.NewEncoder(w).Encode(answered)
	}
}

func (s *server) isReady() bool {
	answer, err := s.client.Get(api + "/readyz")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// call asks the API server; what is not there is no error, and the answer says so.
func (s *server) call(method, path string, body, into any) (found bool, err error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return false, err
	}
	request, err := http.NewRequest(method, api+path, bytes.NewReader(encoded))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	text := bytes.Buffer{}
	_, _ = text.ReadFrom(answer.Body)
	if answer.StatusCode == http.StatusNotFound {
		return false, nil
	}
	if answer.StatusCode >= 300 {
		return false, fmt.Errorf("%s %s: %s", method, path, text.String())
	}
	if into != nil {
		return true, json.Unmarshal(text.Bytes(), into)
	}
	return true, nil
}
