package servers

import (
	"encoding/json"
	"net/http"
	"net/url"
)

// Grant gives a user roles in a project, all of the domain Default, and makes
// what of them is not there yet. It returns the project's id.
func (k *Keystone) Grant(t TB, user, password, project string, roles ...string) string {
	t.Helper()
	token := k.token(t)
	projectID := k.named(t, token, "projects", "project", map[string]any{"name": project, "domain_id": "default"})
	userID := k.named(t, token, "users", "user", map[string]any{"name": user, "domain_id": "default", "password": password})
	for _, role := range roles {
		roleID := k.named(t, token, "roles", "role", map[string]any{"name": role})
		k.call(t, token, http.MethodPut, "/projects/"+projectID+"/users/"+userID+"/roles/"+roleID, nil)
	}
	return projectID
}

// named returns the id of the thing that has the name in fields, and makes it
// if there is none.
func (k *Keystone) named(t TB, token, things, thing string, fields map[string]any) string {
	t.Helper()
	_, body := k.call(t, token, http.MethodGet, "/"+things+"?name="+url.QueryEscape(fields["name"].(string)), nil)
	var found map[string]json.RawMessage
	var list []struct{ ID string }
	if err := json.Unmarshal(body, &found); err != nil {
		t.Fatalf("keystone: %s: %v\n%s", things, err, body)
	}
	if err := json.Unmarshal(found[things], &list); err != nil {
		t.Fatalf("keystone: %s: %v\n%s", things, err, body)
	}
	if len(list) > 0 {
		return list[0].ID
	}
	return k.post(t, token, things, thing, fields)
}

// Token returns a token of a user for a project.
func (k *Keystone) Token(t TB, user, password, project string) string {
	t.Helper()
	return k.ScopedToken(t, user, password, map[string]any{"project": map[string]any{"name": project, "domain": map[string]any{"id": "default"}}})
}

// ScopedToken returns a token of a user for what scope says in Keystone's own
// form, such as "unscoped" or {"system": {"all": true}}.
func (k *Keystone) ScopedToken(t TB, user, password string, scope any) string {
	t.Helper()
	header, _ := k.call(t, "", http.MethodPost, "/auth/tokens", map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{
			"user": map[string]any{"name": user, "domain": map[string]any{"id": "default"}, "password": password}}},
		"scope": scope,
	}})
	return header.Get("X-Subject-Token")
}

// GrantDomain gives a user that is there a role in the domain Default.
func (k *Keystone) GrantDomain(t TB, user, role string) {
	t.Helper()
	token := k.token(t)
	userID := k.named(t, token, "users", "user", map[string]any{"name": user})
	roleID := k.named(t, token, "roles", "role", map[string]any{"name": role})
	k.call(t, token, http.MethodPut, "/domains/default/users/"+userID+"/roles/"+roleID, nil)
}

// Revoke makes a token invalid.
func (k *Keystone) Revoke(t TB, token string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodDelete, k.URL+"/auth/tokens", nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("X-Subject-Token", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("keystone: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("keystone: revoke a token: %s", resp.Status)
	}
}
