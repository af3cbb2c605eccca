-- What an OIDC provider gave at the sign-in, sealed, and from when on it is asked again whether it still knows the user.
ALTER TABLE "identity"."identities" ADD COLUMN "sealed_tokens" TEXT, ADD COLUMN "ask_after" TIMESTAMPTZ(3);
