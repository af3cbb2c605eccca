-- A robot's permission is told with an effect when it was given with one, as by Harbor: Terraform sees a difference otherwise.
alter table identity.grants add column effect_given boolean not null default false;
update identity.grants set effect_given = true where effect = 'deny';
