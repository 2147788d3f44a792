// A minimal xDS server on go-control-plane, which sends what it finds in a file: the floor for the control plane.
//
//	go-control-plane HOST:PORT SNAPSHOTS
//
// A line of the file is a proxy: {"proxy": name, "resources": {type URL: {name: base64 of the message}}}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"net"
	"os"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

type entry struct {
	Proxy     string
	Resources map[string]map[string][]byte
}

func main() {
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(false, cache.IDHash{}, nil)
	must(fill(ctx, snapshots, os.Args[2]))
	listener, err := net.Listen("tcp", os.Args[1])
	must(err)
	grpcServer := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(ctx, snapshots, nil))
	must(grpcServer.Serve(listener))
}

func fill(ctx context.Context, snapshots cache.SnapshotCache, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var item entry
		if err := json.Unmarshal(lines.Bytes(), &item); err != nil {
			return err
		}
		found := map[resource.Type][]types.Resource{}
		for url, resources := range item.Resources {
			for _, value := range resources {
				message := empty(url)
				if err := proto.Unmarshal(value, message); err != nil {
					return err
				}
				found[url] = append(found[url], message)
			}
		}
		snapshot, err := cache.NewSnapshot("1", found)
		if err != nil {
			return err
		}
		if err := snapshots.SetSnapshot(ctx, item.Proxy, snapshot); err != nil {
			return err
		}
	}
	return lines.Err()
}

func empty(url string) proto.Message {
	switch url {
	case resource.ClusterType:
		return &clusterv3.Cluster{}
	case resource.EndpointType:
		return &endpointv3.ClusterLoadAssignment{}
	case resource.ListenerType:
		return &listenerv3.Listener{}
	default:
		return &routev3.RouteConfiguration{}
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
