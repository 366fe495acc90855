// containerd's own tests of what a snapshotter must do, run against naiad through its socket.
package conformance

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// start gives each test a snapshotter of its own: the tests use the same keys, several at a time.
func start(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	address := filepath.Join(root, "naiad.sock")
	command := exec.Command(os.Getenv("PYTHON"), "-m", "cli", "snapshotter",
		"--root", root, "--address", address, "--no-images")
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return nil, nil, err
	}
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if caller, err := net.Dial("unix", address); err == nil {
			caller.Close()
			break
		}
	}
	channel, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	stop := func() error {
		channel.Close()
		command.Process.Signal(os.Interrupt)
		return command.Wait()
	}
	return proxy.NewSnapshotter(api.NewSnapshotsClient(channel), "naiad"), stop, nil
}

func TestSnapshotter(t *testing.T) {
	// By this name the suite knows that directories of a lower layer cannot be renamed (EXDEV),
	// which is so with every snapshotter that mounts overlayfs.
	testsuite.SnapshotterSuite(t, "overlayfs", start)
}
