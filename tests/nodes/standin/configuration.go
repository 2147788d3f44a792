package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

type configuration map[string]any

// readConfiguration merges the files, then the environment, then the flags (--name=value), as k3s does.
func readConfiguration(flags []string) configuration {
	merged := configuration{}
	files, _ := filepath.Glob("/etc/rancher/k3s/config.yaml.d/*.yaml")
	sort.Strings(files)
	for _, file := range append([]string{"/etc/rancher/k3s/config.yaml"}, files...) {
		content, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		must(err)
		read := configuration{}
		if err := yaml.Unmarshal(content, &read); err != nil {
			fatal("%s: %v", file, err)
		}
		for name, value := range read {
			// Of a later file, name+ adds to a list.
			if plain, more := strings.CutSuffix(name, "+"); more {
				before, _ := merged[plain].([]any)
				added, _ := value.([]any)
				merged[plain] = append(before, added...)
			} else {
				merged[name] = value
			}
		}
	}
	for variable, name := range map[string]string{"K3S_TOKEN": "token", "K3S_TOKEN_FILE": "token-file", "K3S_URL": "server"} {
		if value := os.Getenv(variable); value != "" {
			merged[name] = value
		}
	}
	for _, flag := range flags {
		name, value, given := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if !given {
			value = "true"
		}
		merged[name] = value
	}
	return merged
}

func (c configuration) text(name, otherwise string) string {
	if value, found := c[name]; found && value != nil {
		return strings.Join(c.list(name), ",")
	}
	return otherwise
}

func (c configuration) set(name string) bool {
	return c.text(name, "") == "true"
}

func (c configuration) list(name string) []string {
	texts := []string{}
	switch value := c[name].(type) {
	case nil:
	case []any:
		for _, each := range value {
			texts = append(texts, fmt.Sprint(each))
		}
	default:
		texts = append(texts, fmt.Sprint(value))
	}
	return texts
}

func (c configuration) data() string {
	return c.text("data-dir", "/var/lib/rancher/k3s")
}

func (c configuration) name() string {
	host, err := os.Hostname()
	must(err)
	return strings.ToLower(c.text("node-name", host))
}

// address is what the configuration says, else that of the way out.
func (c configuration) address() string {
	if said := c.text("node-ip", ""); said != "" {
		return strings.Split(said, ",")[0]
	}
	connection, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		fatal("failed to find the address of this node: %v", err)
	}
	return connection.LocalAddr().(*net.UDPAddr).IP.String()
}

// token is what the configuration says, without the hash of an authority before it.
func (c configuration) token() (password, hash string) {
	token := c.text("token", "")
	if file := c.text("token-file", ""); file != "" {
		content, err := os.ReadFile(file)
		must(err)
		token = strings.TrimSpace(string(content))
	}
	if rest, long := strings.CutPrefix(token, "K10"); long {
		hash, password, _ = strings.Cut(rest, "::")
		_, password, _ = strings.Cut(password, ":")
		return password, hash
	}
	return token, ""
}
