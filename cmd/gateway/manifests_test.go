package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// imageEnv is what the image sets before an operator does.
func imageEnv(t *testing.T) []string {
	t.Helper()
	var env []string
	for _, kv := range regexp.MustCompile(`\b`+prefix+`\w+=\S+`).FindAllString(readFile(t, "Dockerfile"), -1) {
		env = append(env, strings.TrimSuffix(kv, `\`))
	}
	if len(env) == 0 {
		t.Fatal("the Dockerfile sets nothing")
	}
	return env
}

// accepts starts from the image's environment and says what the gateway makes of it with env.
func accepts(t *testing.T, where string, env map[string]string) Config {
	t.Helper()
	environ := imageEnv(t)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		environ = append(environ, k+"="+env[k])
	}
	cfg, err := loadConfig(environ)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if cfg.Redis.URL == "" || !cfg.DatabaseURL.Postgres() {
		t.Errorf("%s: is not a cluster", where)
	}
	return cfg
}

// stopTime is how long a gateway may take from SIGTERM to its end: clients are sent away, then the stores are written.
func stopTime(cfg Config) time.Duration { return cfg.ReadyDelay + 2*cfg.DrainTimeout }

type composeService struct {
	Image, Build string
	Environment  map[string]string
	DependsOn    map[string]struct{ Condition string } `yaml:"depends_on"`
	Networks     []string
	Volumes      []string
	Ports        []string
	Restart      string
	StopGrace    time.Duration `yaml:"stop_grace_period"`
	Healthcheck  *struct{ Test []string }
	ReadOnly     bool `yaml:"read_only"`
}

type composeFile struct {
	Services map[string]composeService
	Networks map[string]any
	Volumes  map[string]any
}

// interpolate replaces ${NAME}, ${NAME:-default} and ${NAME:?complaint} as compose does.
func interpolate(t *testing.T, s string, vars map[string]string) string {
	t.Helper()
	return regexp.MustCompile(`\$\{(\w+)(?::([-?])([^}]*))?\}`).ReplaceAllStringFunc(s, func(ref string) string {
		m := regexp.MustCompile(`^\$\{(\w+)(?::([-?])([^}]*))?\}$`).FindStringSubmatch(ref)
		value := vars[m[1]]
		switch {
		case value == "" && m[2] == "-":
			return m[3]
		case value == "":
			t.Errorf("compose.yaml: %s is not in .env.example", m[1])
		}
		return value
	})
}

func TestComposeFile(t *testing.T) {
	const dir = "deploy/compose"
	vars := map[string]string{"POSTGRES_PASSWORD": "geheim1", "REDIS_PASSWORD": "geheim2"}
	for line := range strings.Lines(readFile(t, dir+"/.env.example")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") && vars[name] == "" {
			vars[name] = value
		}
	}
	f := yamlDocs[composeFile](t, dir+"/compose.yaml")[0]
	gateways := 0
	for _, name := range slices.Sorted(maps.Keys(f.Services)) {
		s := f.Services[name]
		where := "compose.yaml: " + name
		if s.Image == "" {
			t.Errorf("%s: has no image", where)
		}
		for other, d := range s.DependsOn {
			needed, ok := f.Services[other]
			switch {
			case !ok:
				t.Errorf("%s: depends on %s, which is not there", where, other)
			case d.Condition == "service_healthy" && needed.Healthcheck == nil:
				t.Errorf("%s: waits for %s, which has no health check", where, other)
			case d.Condition == "service_completed_successfully" && needed.Restart != "":
				t.Errorf("%s: waits for the end of %s, which starts again", where, other)
			}
		}
		for _, n := range s.Networks {
			if _, ok := f.Networks[n]; !ok {
				t.Errorf("%s: there is no network %s", where, n)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, ".") {
				if _, err := os.Stat(filepath.Join(root, dir, from)); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			} else if _, ok := f.Volumes[from]; !ok {
				t.Errorf("%s: there is no volume %s", where, from)
			}
		}
		for key, value := range s.Environment {
			s.Environment[key] = interpolate(t, value, vars)
		}
		if _, ok := s.Environment[prefix+"REDIS_URL"]; !ok {
			continue
		}
		gateways++
		cfg := accepts(t, where, s.Environment)
		if s.StopGrace <= stopTime(cfg) {
			t.Errorf("%s: is killed after %v, and may take %v to stop", where, s.StopGrace, stopTime(cfg))
		}
		if s.Restart != "unless-stopped" || !s.ReadOnly || len(s.Ports) > 0 {
			t.Errorf("%s: %+v", where, s)
		}
		if _, err := os.Stat(filepath.Join(root, dir, s.Build, "Dockerfile")); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	if gateways != 2 {
		t.Errorf("compose.yaml has %d gateways", gateways)
	}
}

// object is a Kubernetes manifest, as far as these tests look into it.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name, Namespace string }
	Data       map[string]string
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Selector        any
		SessionAffinity string `yaml:"sessionAffinity"`
		Ports           []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     podSpec
		}
		Rules []struct {
			HTTP struct {
				Paths []struct {
					Path    string
					Backend struct {
						Service struct {
							Name string
							Port struct{ Name string }
						}
					}
				}
			}
		}
	}
}

type podSpec struct {
	Grace        int   `yaml:"terminationGracePeriodSeconds"`
	ServiceLinks *bool `yaml:"enableServiceLinks"`
	Security     struct {
		NonRoot bool `yaml:"runAsNonRoot"`
		User    int  `yaml:"runAsUser"`
	} `yaml:"securityContext"`
	Containers []struct {
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		EnvFrom []struct {
			ConfigMap struct{ Name string } `yaml:"configMapRef"`
			Secret    struct{ Name string } `yaml:"secretRef"`
		} `yaml:"envFrom"`
		Startup   probe `yaml:"startupProbe"`
		Liveness  probe `yaml:"livenessProbe"`
		Readiness probe `yaml:"readinessProbe"`
		Security  struct {
			ReadOnly bool `yaml:"readOnlyRootFilesystem"`
		} `yaml:"securityContext"`
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	Period  int                         `yaml:"periodSeconds"`
	Failure int                         `yaml:"failureThreshold"`
}

func TestKubernetesManifests(t *testing.T) {
	const dir = "deploy/kubernetes/"
	objects := make(map[string]object) // by kind and name
	kustomization := readFile(t, dir+"kustomization.yaml")
	for _, file := range filesUnder(t, strings.TrimSuffix(dir, "/")) {
		base := filepath.Base(file)
		if base == "kustomization.yaml" {
			continue
		}
		// Also what is commented out there and chosen by the operator.
		if !strings.Contains(kustomization, base) {
			t.Errorf("kustomization.yaml does not know %s", base)
		}
		for _, o := range yamlDocs[object](t, file) {
			if o.APIVersion == "" || o.Metadata.Name == "" || o.Kind != "Namespace" && o.Metadata.Namespace != "holdfast" {
				t.Errorf("%s: %s %q in %q", file, o.Kind, o.Metadata.Name, o.Metadata.Namespace)
			}
			objects[o.Kind+" "+o.Metadata.Name] = o
		}
	}
	for _, k := range yamlDocs[struct{ Resources []string }](t, dir+"kustomization.yaml") {
		for _, r := range k.Resources {
			if _, err := os.Stat(filepath.Join(root, dir, r)); err != nil {
				t.Errorf("kustomization.yaml: %v", err)
			}
		}
	}

	pod := objects["Deployment gateway"].Spec.Template
	c := pod.Spec.Containers[0]
	env := make(map[string]string)
	for _, from := range c.EnvFrom {
		key := "ConfigMap " + from.ConfigMap.Name
		if from.Secret.Name != "" {
			key = "Secret " + from.Secret.Name
		}
		if _, ok := objects[key]; !ok {
			t.Fatalf("there is no %s", key)
		}
		maps.Copy(env, objects[key].Data)
		maps.Copy(env, objects[key].StringData)
	}
	cfg := accepts(t, "kubernetes", env)
	grace := time.Duration(pod.Spec.Grace) * time.Second
	if grace <= stopTime(cfg) {
		t.Errorf("a pod is killed after %v, and may take %v to stop", grace, stopTime(cfg))
	}
	if noticed := time.Duration(c.Readiness.Period*c.Readiness.Failure) * time.Second; cfg.ReadyDelay <= noticed {
		t.Errorf("%v of draining are not noticed before %v", cfg.ReadyDelay, noticed)
	}
	// The links of a Service whose name begins with holdfast would be HOLDFAST_ variables that the gateway refuses.
	if pod.Spec.ServiceLinks == nil || *pod.Spec.ServiceLinks {
		t.Error("enableServiceLinks has to be false")
	}
	if !pod.Spec.Security.NonRoot || pod.Spec.Security.User != 65532 || !c.Security.ReadOnly {
		t.Errorf("security contexts: %+v, %+v", pod.Spec.Security, c.Security)
	}
	// A gateway without its stores is not ready, and alive.
	for what, got := range map[string][2]string{
		"startup":   {c.Startup.HTTPGet.Path, "/healthz"},
		"liveness":  {c.Liveness.HTTPGet.Path, "/healthz"},
		"readiness": {c.Readiness.HTTPGet.Path, "/readyz"},
	} {
		if got[0] != got[1] {
			t.Errorf("the %s probe asks %q, not %q", what, got[0], got[1])
		}
	}

	ports := make(map[string]int)
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for _, listen := range []struct{ name, addr string }{{"clients", cfg.Listen}, {"admin", cfg.AdminListen}} {
		if !strings.HasSuffix(listen.addr, fmt.Sprintf(":%d", ports[listen.name])) {
			t.Errorf("port %s is %d, and the image listens on %s", listen.name, ports[listen.name], listen.addr)
		}
	}
	for _, name := range []string{"Service gateway", "Service gateway-admin"} {
		s := objects[name].Spec
		selector, _ := s.Selector.(map[string]any)
		for k, v := range selector {
			if pod.Metadata.Labels[k] != v {
				t.Errorf("%s selects %s=%v, and the pods have %q", name, k, v, pod.Metadata.Labels[k])
			}
		}
		if len(selector) == 0 || s.SessionAffinity != "" && s.SessionAffinity != "None" {
			t.Errorf("%s: selector %v, affinity %q", name, selector, s.SessionAffinity)
		}
		for _, p := range s.Ports {
			if ports[p.TargetPort] != p.Port {
				t.Errorf("%s: port %d goes to %s, which is %d", name, p.Port, p.TargetPort, ports[p.TargetPort])
			}
		}
	}
	for _, r := range objects["Ingress gateway"].Spec.Rules {
		for _, p := range r.HTTP.Paths {
			s := objects["Service "+p.Backend.Service.Name].Spec
			if len(s.Ports) == 0 || s.Ports[0].Name != p.Backend.Service.Port.Name {
				t.Errorf("the Ingress sends %s to %+v", p.Path, p.Backend)
			}
		}
	}
}
