package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

func join(c configuration) {
	server := c.text("server", "")
	password, hash := c.token()
	if server == "" || password == "" {
		fatal("--server and --token are required")
	}
	go balance(server)
	authority := trust(server, hash)
	must(os.MkdirAll(filepath.Join(c.data(), "agent"), 0o755))
	must(os.WriteFile(filepath.Join(c.data(), "agent/server-ca.crt"), []byte(authority), 0o600))
	once := sync.Once{}
	joined := make(chan struct{})
	go heartbeat(c, func(self node) error {
		err := ask(server, authority, "node", password, "node", self, nil)
		if err == nil {
			once.Do(func() { close(joined) })
		}
		return err
	})
	<-joined
	ready()
}

// balance makes the servers' API reachable on loopback. k3s knows all servers; this knows the one it was given.
func balance(server string) {
	target, err := url.Parse(server)
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:6444")
	must(err)
	for {
		from, err := listener.Accept()
		must(err)
		go func() {
			defer from.Close()
			to, err := net.Dial("tcp", target.Host)
			if err != nil {
				return
			}
			defer to.Close()
			go func() { _, _ = io.Copy(to, from) }()
			_, _ = io.Copy(from, to)
		}()
	}
}

// trust fetches the authority of a cluster, which a full token has the hash of. It waits for a server that is away.
func trust(server, hash string) string {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for {
		answer, err := client.Get(server + "/cacerts")
		if err == nil && answer.StatusCode == http.StatusOK {
			text, _ := io.ReadAll(answer.Body)
			if hash != "" && hash != digest(string(text)) {
				fatal("token CA hash does not match the Cluster CA certificate hash: %s != %s", hash, digest(string(text)))
			}
			return string(text)
		}
		complain("failed to get CA certs: %v", err)
		time.Sleep(time.Second)
	}
}

// ask calls a server's supervisor.
func ask(server, authority, user, password, what string, body, into any) error {
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(authority))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true}
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, server+"/v1-k3s/"+what, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	request.SetBasicAuth(user, password)
	answer, err := (&http.Client{Timeout: 15 * time.Second, Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s/v1-k3s/%s: %s: %s", server, what, answer.Status, strings.TrimSpace(string(text)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// notify tells systemd that this program is ready.
func notify(socket string) error {
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = connection.Write([]byte("READY=1"))
	return err
}
