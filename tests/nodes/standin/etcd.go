package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const etcdClient = "http://127.0.0.1:2379"

// etcd is one member of a real cluster of etcd, without TLS. A new one learns first, and votes once it has caught up.
type etcd struct {
	promote func() error
}

type member struct {
	ID        string   `json:"ID"`
	Name      string   `json:"name"`
	PeerURLs  []string `json:"peerURLs"`
	IsLearner bool     `json:"isLearner"`
}

func (e *etcd) peer(c configuration) string {
	return "http://" + c.address() + ":2380"
}

func (e *etcd) start(c configuration, members string) {
	folder, single := store(c), filepath.Join(c.data(), "server/db/single")
	if inUse(c) && exists(single) {
		must(os.Rename(single, folder))
		must(os.Remove(filepath.Join(c.data(), "server/db/state.db")))
	} else if !inUse(c) {
		must(os.MkdirAll(folder, 0o700))
		must(os.WriteFile(filepath.Join(c.data(), "server/db/state.db"), nil, 0o600))
	}
	state := "new"
	if members == "" {
		members = c.name() + "=" + e.peer(c)
	} else {
		state = "existing"
	}
	start("etcd",
		"--name="+c.name(), "--data-dir="+folder, "--log-level=error", "--unsafe-no-fsync=true",
		"--listen-client-urls="+etcdClient, "--advertise-client-urls="+etcdClient,
		"--listen-peer-urls="+e.peer(c), "--initial-advertise-peer-urls="+e.peer(c),
		"--initial-cluster="+members, "--initial-cluster-state="+state)
	if e.promote == nil {
		return
	}
	for {
		err := e.promote()
		if err == nil {
			return
		}
		complain("Not a voter of etcd yet: %v", err)
		time.Sleep(time.Second)
	}
}

// add lets a new member learn; the answer names all of them.
func (e *etcd) add(body []byte) (any, error) {
	asked := struct{ Name, Peer string }{}
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, err
	}
	known, err := e.find(asked.Peer)
	if err != nil {
		return nil, err
	}
	if known == nil {
		wanted := map[string]any{"peerURLs": []string{asked.Peer}, "isLearner": true}
		if err := e.call("member/add", wanted, nil); err != nil {
			return nil, err
		}
	}
	members, err := e.members()
	if err != nil {
		return nil, err
	}
	named := []string{}
	for _, each := range members {
		if each.PeerURLs[0] == asked.Peer {
			each.Name = asked.Name
		}
		named = append(named, each.Name+"="+each.PeerURLs[0])
	}
	return map[string]string{"members": strings.Join(named, ",")}, nil
}

func (e *etcd) promoteMember(body []byte) (any, error) {
	asked := struct{ Peer string }{}
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, err
	}
	known, err := e.find(asked.Peer)
	if err != nil || known == nil || !known.IsLearner {
		return nil, err
	}
	return nil, e.call("member/promote", map[string]string{"ID": known.ID}, nil)
}

func (e *etcd) find(peer string) (*member, error) {
	members, err := e.members()
	if err != nil {
		return nil, err
	}
	for _, each := range members {
		if each.PeerURLs[0] == peer {
			return &each, nil
		}
	}
	return nil, nil
}

func (e *etcd) members() ([]member, error) {
	answer := struct{ Members []member }{}
	err := e.call("member/list", map[string]any{}, &answer)
	return answer.Members, err
}

func (e *etcd) call(what string, body, into any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	answer, err := http.Post(etcdClient+"/v3/cluster/"+what, "application/json", bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text := bytes.Buffer{}
	_, _ = text.ReadFrom(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd: %s: %s", what, text.String())
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text.Bytes(), into)
}

// store is where etcd keeps its data. k3s has SQLite for a single server; to whoever looks at the files, so has this.
func store(c configuration) string {
	if inUse(c) {
		return filepath.Join(c.data(), "server/db/etcd")
	}
	return filepath.Join(c.data(), "server/db/single")
}

// inUse tells whether this server is one that others can join.
func inUse(c configuration) bool {
	return c.set("cluster-init") || c.text("server", "") != ""
}
