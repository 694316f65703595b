package cloud

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"go.yaml.in/yaml/v3"
)

// maxFile bounds a clouds.yaml.
const maxFile = 4 << 20

// settings are what is known of a cloud and of the user.
type settings struct {
	auth  clouds.AuthInfo
	where gophercloud.EndpointOpts
	tls   *tls.Config
}

// read finds the settings. ok is false if there are none.
func read(env func(string) string) (s settings, ok bool, err error) {
	kind := env("OS_AUTH_TYPE")
	if kind == "none" || kind == "admin_token" || env("OS_CLOUD") == "" && env("OS_AUTH_URL") == "" {
		return s, false, nil
	}
	if known := []string{"", "password", "v3password", "token", "v3token", "v3applicationcredential"}; !slices.Contains(known, kind) {
		return s, false, fmt.Errorf("OS_AUTH_TYPE is %q, and only passwords, tokens and application credentials are known: set it to password, token or v3applicationcredential", kind)
	}
	own := fromEnv(env)
	var file, secure []byte
	name := env("OS_CLOUD")
	if name == "" {
		name = "envvars"
		file, err = yaml.Marshal(clouds.Clouds{Clouds: map[string]clouds.Cloud{name: {AuthInfo: &own}}})
		if err != nil {
			return s, false, err
		}
	} else if file, secure, err = find(env); err != nil {
		return s, false, err
	}
	if s.auth, err = entry(name, file, secure); err != nil {
		return s, false, err
	}
	complete(&s.auth, own)
	opts := []clouds.ParseOption{clouds.WithCloudName(name), clouds.WithCloudsYAML(bytes.NewReader(file)),
		clouds.WithRegion(env("OS_REGION_NAME")), clouds.WithEndpointType(cmp.Or(env("OS_INTERFACE"), env("OS_ENDPOINT_TYPE"))),
		clouds.WithCACertPath(env("OS_CACERT"))}
	if len(secure) > 0 {
		opts = append(opts, clouds.WithSecureYAML(bytes.NewReader(secure)))
	}
	if v := strings.ToLower(env("OS_INSECURE")); v == "true" || v == "1" || v == "yes" {
		opts = append(opts, clouds.WithInsecure(true))
	}
	if _, s.where, s.tls, err = clouds.Parse(opts...); err != nil {
		return s, false, err
	}
	if s.auth.AuthURL == "" {
		return s, false, fmt.Errorf("the cloud %q has no auth_url: say there or in OS_AUTH_URL where its Keystone is", name)
	}
	return s, true, nil
}

func fromEnv(env func(string) string) clouds.AuthInfo {
	return clouds.AuthInfo{
		AuthURL: env("OS_AUTH_URL"), Token: env("OS_TOKEN"),
		Username: env("OS_USERNAME"), UserID: cmp.Or(env("OS_USER_ID"), env("OS_USERID")), Password: env("OS_PASSWORD"),
		ApplicationCredentialID: env("OS_APPLICATION_CREDENTIAL_ID"), ApplicationCredentialName: env("OS_APPLICATION_CREDENTIAL_NAME"),
		ApplicationCredentialSecret: env("OS_APPLICATION_CREDENTIAL_SECRET"),
		SystemScope:                 env("OS_SYSTEM_SCOPE"),
		ProjectName:                 cmp.Or(env("OS_PROJECT_NAME"), env("OS_TENANT_NAME")), ProjectID: cmp.Or(env("OS_PROJECT_ID"), env("OS_TENANT_ID")),
		UserDomainName: env("OS_USER_DOMAIN_NAME"), UserDomainID: env("OS_USER_DOMAIN_ID"),
		ProjectDomainName: env("OS_PROJECT_DOMAIN_NAME"), ProjectDomainID: env("OS_PROJECT_DOMAIN_ID"),
		DomainName: env("OS_DOMAIN_NAME"), DomainID: env("OS_DOMAIN_ID"), DefaultDomain: env("OS_DEFAULT_DOMAIN"),
	}
}

// complete adds what an entry of a file may leave to the environment.
func complete(a *clouds.AuthInfo, own clouds.AuthInfo) {
	if a.Username == "" && a.UserID == "" {
		a.Username, a.UserID = own.Username, own.UserID
	}
	if a.ProjectName == "" && a.ProjectID == "" {
		a.ProjectName, a.ProjectID = own.ProjectName, own.ProjectID
	}
	a.AuthURL, a.Password = cmp.Or(a.AuthURL, own.AuthURL), cmp.Or(a.Password, own.Password)
}

// find reads clouds.yaml, and secure.yaml if that is beside it.
func find(env func(string) string) (file, secure []byte, err error) {
	config := cmp.Or(env("XDG_CONFIG_HOME"), filepath.Join(env("HOME"), ".config"))
	places := []string{"clouds.yaml", filepath.Join(config, "openstack", "clouds.yaml"), "/etc/openstack/clouds.yaml"}
	if one := env("OS_CLIENT_CONFIG_FILE"); one != "" {
		places = []string{one}
	}
	for _, place := range places {
		if file, err = readFile(place); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		secure, err = readFile(filepath.Join(filepath.Dir(place), "secure.yaml"))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return file, secure, err
	}
	return nil, nil, fmt.Errorf("OS_CLOUD is %q, and there is no clouds.yaml: it was looked for at %s", env("OS_CLOUD"), strings.Join(places, ", "))
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// entry returns what the files say of how to log in to a cloud. gophercloud
// would mix up the domains of the user and of the project.
func entry(name string, file, secure []byte) (clouds.AuthInfo, error) {
	var all clouds.Clouds
	if err := yaml.Unmarshal(file, &all); err != nil {
		return clouds.AuthInfo{}, fmt.Errorf("clouds.yaml: %w", err)
	}
	c, ok := all.Clouds[name]
	if !ok || c.AuthInfo == nil {
		var names []string
		for n := range all.Clouds {
			names = append(names, n)
		}
		slices.Sort(names)
		return clouds.AuthInfo{}, fmt.Errorf("clouds.yaml has no cloud %q with an auth section; it has: %s", name, strings.Join(names, ", "))
	}
	var secrets struct {
		Clouds map[string]struct {
			Auth yaml.Node `yaml:"auth"`
		} `yaml:"clouds"`
	}
	if err := yaml.Unmarshal(secure, &secrets); err != nil {
		return clouds.AuthInfo{}, fmt.Errorf("secure.yaml: %w", err)
	}
	auth := *c.AuthInfo
	// What is in both files is right in secure.yaml, which is read over it.
	if s, ok := secrets.Clouds[name]; ok && !s.Auth.IsZero() {
		if err := s.Auth.Decode(&auth); err != nil {
			return clouds.AuthInfo{}, fmt.Errorf("secure.yaml: %w", err)
		}
	}
	return auth, nil
}

// options says to Keystone who the user is, and for what the token shall be.
func (s settings) options() (*tokens.AuthOptions, error) {
	a := s.auth
	o := &tokens.AuthOptions{TokenID: a.Token, ApplicationCredentialID: a.ApplicationCredentialID, ApplicationCredentialSecret: a.ApplicationCredentialSecret}
	byCredential := a.ApplicationCredentialID != "" || a.ApplicationCredentialName != ""
	switch {
	case byCredential && a.ApplicationCredentialID != "":
		return o, nil
	case a.Token != "":
		return o, nil // for what it is already
	case a.UserID == "" && a.Username == "":
		return nil, errors.New("nothing says who the user is: set OS_USERNAME, or OS_APPLICATION_CREDENTIAL_ID, or username in clouds.yaml")
	case !byCredential && a.Password == "":
		return nil, errors.New("there is no password: set OS_PASSWORD, or password in clouds.yaml or secure.yaml")
	}
	o.UserID, o.Password = a.UserID, a.Password
	if a.UserID == "" {
		o.Username = a.Username
		o.DomainID, o.DomainName = domain(a.UserDomainID, a.UserDomainName, a)
	}
	if byCredential {
		o.ApplicationCredentialName, o.Password = a.ApplicationCredentialName, ""
		return o, nil
	}
	switch {
	case a.SystemScope != "":
		o.Scope.System = true
	case a.ProjectID != "":
		o.Scope.ProjectID = a.ProjectID
	case a.ProjectName != "":
		o.Scope.ProjectName = a.ProjectName
		o.Scope.DomainID, o.Scope.DomainName = domain(a.ProjectDomainID, a.ProjectDomainName, a)
	default:
		o.Scope.DomainID, o.Scope.DomainName = only(a.DomainID, a.DomainName)
	}
	return o, nil
}

// domain returns the id or the name of a domain, that of both kinds where
// there is no particular one.
func domain(id, name string, a clouds.AuthInfo) (string, string) {
	for _, d := range [][2]string{{id, name}, {a.DomainID, a.DomainName}, {a.DefaultDomain, ""}} {
		if d[0] != "" || d[1] != "" {
			return only(d[0], d[1])
		}
	}
	return "default", "" // the id of the domain that each Keystone has
}

// only keeps one of what Keystone takes only one of.
func only(id, name string) (string, string) {
	if id != "" {
		return id, ""
	}
	return "", name
}
