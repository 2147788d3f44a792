// A stand-in for k3s, and not k3s: the real one is in no package registry. It behaves as k3s does towards whoever installs
// it: its command line, its configuration, files, ports, tokens and units, and the order in which nodes come to know each
// other. Behind it are the real etcd and the real Kubernetes API. It has no kubelet and runs no container: a node is
// Ready once it has a CNI configuration.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Set from outside, as k3s' own builds do.
var version = "v0.0.0+k3s1"

// What it starts; the nodes see it there.
const programs = "/opt/stand-in"

func main() {
	log.SetFlags(0)
	words := os.Args[1:]
	if name := filepath.Base(os.Args[0]); name == "kubectl" {
		words = append([]string{name}, words...)
	}
	command := ""
	if len(words) > 0 {
		command = words[0]
	}
	switch command {
	case "--version", "-v", "version":
		fmt.Printf("k3s version %s (stand-in)\ngo version %s\n", version, runtime.Version())
	case "kubectl":
		kubectl(words[1:])
	case "server":
		serve(readConfiguration(words[1:]))
	case "agent":
		join(readConfiguration(words[1:]))
	default:
		fatal("this is a stand-in for k3s, and it has no command %q", command)
	}
}

func kubectl(words []string) {
	if os.Getenv("KUBECONFIG") == "" {
		os.Setenv("KUBECONFIG", "/etc/rancher/k3s/k3s.yaml")
	}
	program := programs + "/kubectl"
	fatal("%v", syscall.Exec(program, append([]string{program}, words...), os.Environ()))
}

// start runs a program that ends with this one.
func start(name string, flags ...string) {
	started := make(chan error)
	go func() {
		// The kernel counts the end of a thread as that of the parent.
		runtime.LockOSThread()
		command := exec.Command(filepath.Join(programs, name), flags...)
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started <- command.Start()
		fatal("%s ended: %v", name, command.Wait())
	}()
	must(<-started)
}

// ready tells systemd, and then runs until it is told to stop.
func ready() {
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		must(notify(strings.Replace(socket, "@", "\x00", 1)))
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

func must(err error) {
	if err != nil {
		fatal("%v", err)
	}
}

func fatal(format string, values ...any) {
	log.Printf("level=fatal msg=%q", fmt.Sprintf(format, values...))
	os.Exit(1)
}

func complain(format string, values ...any) {
	log.Printf("level=error msg=%q", fmt.Sprintf(format, values...))
}
