// Package cloud logs a user in to an OpenStack cloud, as its other clients do.
//
// What it goes by is clouds.yaml, if OS_CLOUD names an entry there, or else
// OS_AUTH_URL and the variables beside it. There are passwords, application
// credentials and tokens; OS_AUTH_TYPE, where it is set, must be of one of
// them, or "none" and "admin_token", with which no Keystone is asked.
//
// clouds.yaml is looked for where OS_CLIENT_CONFIG_FILE says, or else in the
// present folder, in ~/.config/openstack and in /etc/openstack; secure.yaml
// beside it may have what is secret. What the entry lacks of user, password
// and project comes from the variables.
package cloud
