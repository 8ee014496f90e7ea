// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"fmt"
	"net/http"

	xlanguage "golang.org/x/text/language"
)

// lang is the language of a page: "en" or "de".
type lang string

var matcher = xlanguage.NewMatcher([]xlanguage.Tag{xlanguage.English, xlanguage.German})

func language(r *http.Request) lang {
	tags, _, err := xlanguage.ParseAcceptLanguage(r.Header.Get("Accept-Language"))
	if err != nil {
		return "en"
	}
	if _, i, _ := matcher.Match(tags...); i == 1 {
		return "de"
	}
	return "en"
}

// t translates an English text; what has no translation stays English.
func (l lang) t(text string) string {
	if de, ok := german[text]; ok && l == "de" {
		return de
	}
	return text
}

// f translates a format and fills it in.
func (l lang) f(format string, args ...any) string { return fmt.Sprintf(l.t(format), args...) }

// german has every text of the console; a key with a colon is the code of a reason, whose English words come with it.
var german = map[string]string{ //nolint:gosec // words, no credentials
	"Status": "Status", "Participant": "Teilnehmer", "Participants": "Teilnehmer", "Organization": "Organisation", "Cell": "Zelle",
	"Runs in": "Läuft in", "Operated by": "Betrieben von", "Connector": "Konnektor", "Credentials": "Nachweise", "Credential": "Nachweis", "party": "Partei", "Where you are": "Wo Sie sind", "Contracts": "Verträge",
	"Last heard": "Zuletzt gehört", "Log out": "Abmelden", "Log in": "Anmelden", "Skip to content": "Zum Inhalt springen",
	"Healthy": "In Ordnung", "Pending": "Unterwegs", "Warning": "Hinweis", "Failed": "Gestört", "Unknown": "Unbekannt",
	"There is no participant yet.": "Es gibt noch keinen Teilnehmer.",
	"Every participant, where it runs, and how its connector, credentials and contracts are.": "Alle Teilnehmer: wo sie laufen und wie es um Konnektor, Nachweise und Verträge steht.",
	"Identity": "Identität", "Business partner number": "Geschäftspartnernummer", "Profile": "Profil", "Managed by": "Verwaltet von",
	"Onboarding": "Aufnahme", "Issued by": "Ausgestellt von", "State": "Zustand", "Valid until": "Gültig bis", "Type": "Art",
	"Negotiations": "Verhandlungen", "Negotiation": "Verhandlung", "Start a negotiation": "Verhandlung beginnen",
	"No negotiation yet.": "Noch keine Verhandlung.", "Counterparty": "Gegenseite", "Asset": "Datenangebot", "Began": "Begonnen", "Role": "Rolle",
	"consumer": "Abnehmer", "provider": "Anbieter", "active": "aktiv", "failed": "gescheitert", "under way": "laufend",
	"Show the catalog": "Katalog zeigen", "Negotiate": "Verhandeln", "Catalog of": "Katalog von", "Choose a partner": "Partner wählen",
	"The partner offers nothing that you may see.": "Der Partner bietet nichts an, das Sie sehen dürfen.",
	"What the contract demands":                    "Was der Vertrag verlangt", "Use case": "Anwendungsfall", "Offer": "Angebot", "Agreement": "Vereinbarung",
	"Steps": "Schritte", "What was checked": "Was geprüft wurde", "Nothing has been checked yet.": "Noch wurde nichts geprüft.",
	"seen": "gesehen", "nothing": "nichts", "Demanded": "Verlangt", "What to do": "Was zu tun ist", "granted": "erfüllt", "denied": "abgelehnt",
	"Details for developers": "Einzelheiten für Entwickler", "Why it ended": "Warum sie endete", "waits for": "wartet auf",
	"catalog": "Katalog", "negotiation": "Verhandlung", "transfer": "Übertragung", "access": "Zugriff",
	"Requested": "Angefragt", "Offered": "Angeboten", "Accepted": "Angenommen", "Agreed": "Vereinbart", "Verified": "Geprüft", "Concluded": "Abgeschlossen", "Ended without agreement": "Ohne Vereinbarung beendet",
	"The DID document answers": "Das DID-Dokument ist erreichbar", "The credentials are held": "Die Nachweise liegen vor", "A contact is named": "Ein Ansprechpartner ist genannt",
	"participant or DID": "Teilnehmer oder DID", "Valid": "Gültig", "Expiring": "Läuft ab", "Expired": "Abgelaufen", "Revoked": "Widerrufen", "Suspended": "Ausgesetzt", "Rejected": "Abgelehnt", "Wrong issuer": "Falscher Aussteller",
	"Never delivered": "Nie geliefert", "Renewal stuck": "Erneuerung hängt", "Wanted": "Noch nicht angefragt",
	"Nothing: the wallet is renewing it by itself.":                                                                       "Nichts: Das Wallet erneuert ihn selbst.",
	"Clear up the reason with the issuer before the credential expires; the wallet goes on asking by itself.":             "Klären Sie den Grund mit dem Aussteller, bevor der Nachweis abläuft; das Wallet fragt von selbst weiter.",
	"Clear up with the issuer why no new one came; the wallet goes on asking by itself and takes it as soon as it comes.": "Klären Sie mit dem Aussteller, warum kein neuer kam; das Wallet fragt von selbst weiter und nimmt ihn, sobald er kommt.",
	"Ask the issuer why. The wallet asks for no new one by itself and takes one that the issuer offers.":                  "Fragen Sie den Aussteller nach dem Grund. Das Wallet fragt nicht von selbst nach einem neuen und nimmt einen, den der Aussteller anbietet.",
	"Ask the issuer what it waits for; the credential counts again as soon as it is resumed.":                             "Fragen Sie den Aussteller, worauf er wartet; der Nachweis gilt wieder, sobald er fortgesetzt wird.",
	"Request it from an issuer that the dataspace profile trusts for it, or have this one added to the profile.":          "Fordern Sie ihn bei einem Aussteller an, dem das Profil dafür vertraut, oder lassen Sie diesen ins Profil aufnehmen.",
	"See whether the issuer answers and can reach this wallet; it goes on being asked.":                                   "Prüfen Sie, ob der Aussteller antwortet und dieses Wallet erreicht; er wird weiter gefragt.",
	"Have the issuer register what it says is missing; then request it again.":                                            "Lassen Sie den Aussteller eintragen, was nach seinen Worten fehlt; fordern Sie ihn dann neu an.",

	"Back to the status": "Zurück zum Status", "This did not work": "Das hat nicht geklappt", "no such page": "Diese Seite gibt es nicht.",
	"The identity provider does not answer.": "Der Anmeldedienst antwortet nicht.", "Try again in a moment.": "Bitte gleich noch einmal versuchen.",
	"Your session has ended.": "Ihre Sitzung ist zu Ende.", "Log in and repeat what you did.": "Melden Sie sich an und wiederholen Sie den letzten Schritt.",
	"Something went wrong on our side.":                            "Bei uns ist etwas schiefgegangen.",
	"This log-in took too long or was started in another browser.": "Diese Anmeldung hat zu lange gedauert oder wurde in einem anderen Browser begonnen.",
	"This log-in does not belong to the one you started.":          "Diese Anmeldung gehört nicht zu der, die Sie begonnen haben.",
	"The identity provider refused to log you in.":                 "Der Anmeldedienst hat die Anmeldung abgelehnt.",
	"The identity provider's answer is not for this log-in.":       "Die Antwort des Anmeldedienstes gehört nicht zu dieser Anmeldung.",
	"Start again: log in.":                                         "Beginnen Sie von vorn: anmelden.",
	"Technical message":                                            "Technische Meldung (englisch)",
	"In the words of %s":                                           "Im Wortlaut von %s",
	"Waits for %s":                                                 "Wartet auf %s",
	"It is the other side's turn, since":                           "Die Gegenseite ist am Zug, seit",
	"A gate there may hold it until somebody decides.":             "Dort kann ein Prüfschritt sie halten, bis jemand entscheidet.",
	"Its connector has not taken our message in %d attempts.":      "Der Konnektor dort hat unsere Nachricht in %d Versuchen nicht angenommen.",
	"It is tried again at":                                         "Nächster Versuch um",
	"It is given up at":                                            "Aufgegeben wird um",
	"Decentralised identifier (DID)":                               "Dezentrale Kennung (DID)",
	"Negotiation id":                                               "Kennung der Verhandlung", "Offer id": "Kennung des Angebots",
	"Waits for your decision": "Wartet auf Ihre Entscheidung", "It sets no conditions.": "Er stellt keine Bedingungen.",
	"Accept these terms": "Diese Bedingungen annehmen", "Answer with other terms": "Mit anderen Bedingungen antworten", "Propose these terms": "Diese Bedingungen vorschlagen",
	"Other terms about the same asset (ODRL)": "Andere Bedingungen für dasselbe Datenangebot (ODRL)", "Reason, which the counterparty is told": "Grund, den die Gegenseite erfährt",
	"End the negotiation": "Verhandlung beenden", "The terms are no JSON.": "Die Bedingungen sind kein JSON.", "Go back and correct them.": "Gehen Sie zurück und verbessern Sie sie.",
	"Approvals": "Freigaben", "Gates": "Prüfschritte", "Comment": "Bemerkung", "Approve": "Zustimmen", "Reject": "Ablehnen", "Let it pass": "Freigeben", "Waits for a decision": "Wartet auf eine Entscheidung",
	"Negotiations that wait for your decision. You sign it with a key of your own, which this browser keeps.": "Verhandlungen, die auf Ihre Entscheidung warten. Sie unterschreiben sie mit einem eigenen Schlüssel, den dieser Browser verwahrt.",
	"Make and register my key in this browser":                                                                "Meinen Schlüssel in diesem Browser erzeugen und eintragen",
	"Your key is registered. Offers made from now on know it.":                                                "Ihr Schlüssel ist eingetragen. Angebote, die ab jetzt gemacht werden, kennen ihn.",
	"This browser has no key of yours yet: make one first. Offers made from then on know it.":                 "Dieser Browser hat noch keinen Schlüssel von Ihnen: Erzeugen Sie zuerst einen. Angebote, die danach gemacht werden, kennen ihn.",
	"The cell of %s does not answer: something may wait there too.":                                           "Die Zelle von %s antwortet nicht: Auch dort kann etwas warten.",
	"Its offer cannot be read, so nobody can decide on it. Tell the provider's operator.":                     "Das Angebot ist nicht lesbar, also kann niemand darüber entscheiden. Sagen Sie es dem Betreiber des Anbieters.",
	"Nothing waits for your decision.":                                                                        "Nichts wartet auf Ihre Entscheidung.",
	"Ahead":                                                                                                   "Steht noch an", "Open": "Offen", "Late": "Frist versäumt", "approves": "stimmt zu", "rejects": "lehnt ab", "lets it pass": "gibt frei",

	"Use cases": "Anwendungsfälle", "What data is exchanged for, and which revision of its terms is in force.": "Wofür Daten ausgetauscht werden und welche Revision der Bedingungen gilt.",
	"There is no use case yet.": "Es gibt noch keinen Anwendungsfall.", "Newest revision": "Neueste Revision", "Revision in force": "Geltende Revision", "Signed off by": "Freigegeben von",
	"Each change of what a use case demands makes a revision, which never changes. Agreements keep the one that they were made under.": "Jede Änderung dessen, was ein Anwendungsfall verlangt, ergibt eine Revision, die unverändert bleibt. Vereinbarungen behalten die, unter der sie geschlossen wurden.",
	"Revision %d": "Revision %d", "Made": "Erstellt", "Signed off": "Freigegeben", "Hash (SHA-256)": "Prüfsumme (SHA-256)", "Waits for the sign-off of: %s": "Wartet auf die Freigabe durch: %s", "All that it demands": "Alles, was sie verlangt",
	"What differs from revision %d": "Was anders ist als in Revision %d", "No longer": "Nicht mehr", "New": "Neu", "Nothing that changes in words": "Nichts, was sich in Worten ändert",
	"In force": "In Kraft", "Waits": "Wartet", "Earlier": "Früher", "Not signed off": "Nicht freigegeben", "No revision": "Keine Revision", "Sign off": "Freigeben", "On the command line": "Auf der Kommandozeile",
	"Who may sign the next revision":                        "Wer die nächste Revision freigeben darf",
	"This browser has no key of yours yet: make one first.": "Dieser Browser hat noch keinen Schlüssel von Ihnen: Erzeugen Sie zuerst einen.",
	"The sign-off in force does not list this browser's key: sign with a key that it lists, which lists this one too.": "Die geltende Freigabe nennt den Schlüssel dieses Browsers nicht: Geben Sie mit einem Schlüssel frei, den sie nennt; das nennt dann auch diesen.",

	"Main menu": "Hauptmenü", "Passed": "Bestanden", "StartedBy": "Begonnen von",

	"reason:policy-denied":            "Eine Bedingung des Vertrags ist nicht erfüllt.",
	"reason:offer-changed":            "Das Angebot hat sich geändert oder besteht nicht mehr.",
	"reason:not-in-force":             "Der Anwendungsfall ist so, wie das Profil ihn jetzt meint, noch nicht freigegeben.",
	"reason:agreement-differs":        "Die Vereinbarung der Gegenseite entspricht nicht dem, was angefragt war.",
	"reason:counterparty-unreachable": "Der Konnektor der Gegenseite war nicht erreichbar.",
	"reason:counterparty-refused":     "Die Gegenseite hat eine Nachricht abgelehnt.",
	"reason:counterparty-terminated":  "Die Gegenseite hat die Verhandlung beendet.",
	"reason:identity-refused":         "Die Gegenseite hat die Identität dieses Teilnehmers nicht anerkannt.",
	"reason:data-plane-refused":       "Die eigene Datenebene konnte die Daten nicht bereitstellen.",
	"reason:gate-rejected":            "An einem Prüfschritt wurde sie abgelehnt.",
	"reason:gate-late":                "Die Frist eines Prüfschritts ist abgelaufen.",
	"reason:terminated":               "Jemand auf der eigenen Seite hat sie beendet.",

	"check:DIDReachable":    "Das DID-Dokument ist unter seiner öffentlichen Adresse noch nicht so erreichbar, wie es sein soll.",
	"check:CredentialsHeld": "Es fehlt noch ein Nachweis, den das Profil verlangt.",
	"check:ContactNamed":    "Die Organisation nennt noch keinen Ansprechpartner.",

	"credential:Requested": "Beantragt und noch nicht da.", "credential:Expiring": "Läuft bald ab.", "credential:Expired": "Ist abgelaufen.",
	"credential:Revoked": "Vom Aussteller widerrufen.", "credential:Suspended": "Vom Aussteller ausgesetzt.", "credential:Rejected": "Vom Aussteller abgelehnt.",
	"credential:WrongIssuer": "Das Profil vertraut diesem Aussteller dafür nicht.", "credential:NeverDelivered": "Bewilligt, aber nie geliefert.", "credential:RenewalStuck": "Die Erneuerung kommt nicht voran.",

	"problem:invalid":                  "Die Anfrage ist nicht gültig.",
	"problem:unauthenticated":          "Die Anmeldung gilt hier nicht.",
	"problem:forbidden":                "Dazu fehlt Ihnen die Berechtigung.",
	"problem:not-found":                "Das gibt es nicht, oder Sie dürfen es nicht sehen.",
	"problem:conflict":                 "Das geht im jetzigen Zustand nicht.",
	"problem:already-exists":           "Das gibt es schon.",
	"problem:managed-elsewhere":        "Das wird an anderer Stelle verwaltet.",
	"problem:policy-denied":            "Eine Bedingung ist nicht erfüllt.",
	"problem:not-ready":                "Das ist noch nicht bereit.",
	"problem:inactive":                 "Der Konnektor nimmt noch nicht am Datenraum teil.",
	"problem:identity-unavailable":     "Die Identität konnte gerade nicht geprüft werden.",
	"problem:cell-not-connected":       "Die Zelle, in der der Konnektor läuft, antwortet nicht. Ihre Konnektoren arbeiten weiter.",
	"problem:connector-failed":         "Der Konnektor hat mit einem Fehler geantwortet.",
	"problem:counterparty-unreachable": "Der Konnektor des Partners ist nicht erreichbar.",
	"problem:counterparty-refused":     "Der Partner hat die Anfrage abgelehnt.",
	"problem:decision-forged":          "Der Anbieter kennt den Schlüssel dieser Unterschrift nicht: Das Angebot wurde gemacht, bevor er eingetragen war.",
	"problem:wrong-approver":           "Sie gehören nicht zu denen, die hier entscheiden.",
	"problem:decision-expired":         "Die Entscheidung ist nicht mehr gültig oder die Uhr geht falsch.",
	"problem:decision-replayed":        "Diese Entscheidung liegt dem Anbieter schon vor.",
	"problem:other-offer":              "Das Angebot hat sich inzwischen geändert.",
	"problem:gate-late":                "Die Frist ist abgelaufen.",
	"problem:gate-closed":              "Hier ist nichts mehr zu entscheiden.",
	"problem:already-decided":          "Sie haben schon entschieden.",
	"problem:same-organization":        "Aus Ihrer Organisation liegt schon eine Zustimmung vor; es fehlt noch die einer anderen.",
	"problem:internal":                 "Bei uns ist etwas schiefgegangen.",

	"next:invalid": "Angaben prüfen und noch einmal versuchen.", "next:unauthenticated": "Neu anmelden.",
	"next:forbidden": "Jemanden mit der nötigen Rolle darum bitten.", "next:not-found": "Zurück zum Status und von dort weitergehen.",
	"next:conflict": "Die Seite neu laden und den Zustand prüfen.", "next:not-ready": "Bitte gleich noch einmal versuchen.", "next:inactive": "Auf der Seite des Teilnehmers nachsehen, welche Aufnahmeprüfung fehlt.",
	"next:identity-unavailable": "Bitte gleich noch einmal versuchen.", "next:cell-not-connected": "Bitte später noch einmal versuchen; bleibt es so, den Betreiber der Zelle fragen.",
	"next:connector-failed": "Bitte noch einmal versuchen; bleibt es so, den Betreiber fragen.", "next:counterparty-unreachable": "Bitte später noch einmal versuchen.",
	"next:counterparty-refused": "Den Partner fragen.", "next:internal": "Bitte gleich noch einmal versuchen.",
	"next:policy-denied": "Die Prüfung unten nennt die Bedingung, den gesehenen Wert und was hilft.",
}
