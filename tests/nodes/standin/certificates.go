package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// shared is what every server of a cluster has, by its name below server/tls; whoever joins gets it from another server.
var shared = []string{
	"server-ca.crt", "server-ca.key", "client-ca.crt", "client-ca.key", "request-header-ca.crt", "request-header-ca.key",
	"service.crt", "service.key",
}

// makeShared makes a new cluster's authorities, and the key that signs tokens of service accounts.
func makeShared(folder string) {
	for _, name := range []string{"server-ca", "client-ca", "request-header-ca", "service"} {
		if _, err := os.Stat(filepath.Join(folder, name+".key")); err != nil {
			issue(folder, name, &x509.Certificate{
				Subject:  pkix.Name{CommonName: fmt.Sprintf("k3s-%s@%d", name, time.Now().Unix())},
				IsCA:     true,
				KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
			}, "")
		}
	}
}

// makeOwn makes a server's own certificates.
func makeOwn(folder string, names []string) {
	server := &x509.Certificate{Subject: pkix.Name{CommonName: "k3s"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, name := range names {
		if address := net.ParseIP(name); address != nil {
			server.IPAddresses = append(server.IPAddresses, address)
		} else {
			server.DNSNames = append(server.DNSNames, name)
		}
	}
	issue(folder, "serving-kube-apiserver", server, "server-ca")
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	admin := pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}}
	issue(folder, "client-admin", &x509.Certificate{Subject: admin, ExtKeyUsage: client}, "client-ca")
	proxy := pkix.Name{CommonName: "system:auth-proxy"}
	issue(folder, "client-auth-proxy", &x509.Certificate{Subject: proxy, ExtKeyUsage: client}, "request-header-ca")
}

// issue writes a key and a certificate, signed by an authority of the same folder or by itself.
func issue(folder, name string, template *x509.Certificate, authority string) {
	must(os.MkdirAll(folder, 0o700))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	template.BasicConstraintsValid = true
	parent, signer := template, any(key)
	if authority != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(folder, authority+".crt"), filepath.Join(folder, authority+".key"))
		must(err)
		parent, signer = pair.Leaf, pair.PrivateKey
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(err)
	private, err := x509.MarshalECPrivateKey(key)
	must(err)
	save(folder, name+".crt", "CERTIFICATE", certificate)
	save(folder, name+".key", "EC PRIVATE KEY", private)
}

func save(folder, name, kind string, content []byte) {
	must(os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
}

func pool(file string) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(content(file)))
	return pool
}

func content(file string) string {
	content, err := os.ReadFile(file)
	must(err)
	return string(content)
}

func digest(text string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
}
