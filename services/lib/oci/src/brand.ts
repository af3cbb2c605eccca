declare const brand: unique symbol

/** A text that went through the parser of its kind; only that parser makes one. */
export type Branded<Name extends string> = string & { readonly [brand]: Name }
